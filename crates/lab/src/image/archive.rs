//! Images as docker archives, written without an engine: a layer, its configuration, and a manifest in one tar.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

use super::rootfs::Rootfs;
use crate::cache::hex;

/// How an image is called and what it runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    pub tags: Vec<&'static str>,
    pub entrypoint: Vec<&'static str>,
    pub command: Vec<&'static str>,
}

/// Counts and digests what passes through.
struct Digesting<W> {
    inner: W,
    hasher: Sha256,
    size: u64,
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Writes the image of `rootfs` to the file `out`. The same input makes the same bytes.
pub(crate) fn write(out: &Path, rootfs: &Rootfs, config: &Config) -> Result<()> {
    let layer_path = out.with_extension("layer");
    let layer = File::create(&layer_path)
        .with_context(|| format!("failed to write {}", layer_path.display()))?;
    let mut layer = Digesting {
        inner: layer,
        hasher: Sha256::new(),
        size: 0,
    };
    rootfs.write(BufWriter::with_capacity(1 << 20, &mut layer))?;
    let (digest, size) = (hex(&layer.hasher.finalize()), layer.size);

    let image = serde_json::to_vec(&json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Entrypoint": config.entrypoint,
            "Cmd": config.command,
            "WorkingDir": "/",
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "cargo lab build"}],
    }))?;
    let image_name = format!("{}.json", hex(&Sha256::digest(&image)));
    let layer_name = format!("{digest}/layer.tar");
    let manifest = serde_json::to_vec(&json!([{
        "Config": image_name, "RepoTags": config.tags, "Layers": [layer_name],
    }]))?;

    let file = File::create(out).with_context(|| format!("failed to write {}", out.display()))?;
    let mut tar = Builder::new(BufWriter::with_capacity(1 << 20, file));
    let header = |size| {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_size(size);
        header
    };
    tar.append_data(&mut header(image.len() as u64), &image_name, &*image)?;
    tar.append_data(&mut header(size), &layer_name, File::open(&layer_path)?)?;
    tar.append_data(
        &mut header(manifest.len() as u64),
        "manifest.json",
        &*manifest,
    )?;
    tar.into_inner()?.flush()?;
    fs::remove_file(&layer_path)
        .with_context(|| format!("failed to remove {}", layer_path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_archive_names_its_layer_by_digest_and_repeats_bytewise() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            tags: vec!["x.example/y:v1"],
            entrypoint: vec!["/y"],
            command: vec![],
        };
        let (one, two) = (folder.path().join("one.tar"), folder.path().join("two.tar"));
        write(&one, &Rootfs::new(), &config).unwrap();
        write(&two, &Rootfs::new(), &config).unwrap();
        assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);

        let mut layer = (String::new(), Vec::new());
        let mut manifest = String::new();
        for entry in tar::Archive::new(File::open(&one).unwrap())
            .entries()
            .unwrap()
        {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            if name.ends_with("layer.tar") {
                layer.0 = name;
                entry.read_to_end(&mut layer.1).unwrap();
            } else if name == "manifest.json" {
                entry.read_to_string(&mut manifest).unwrap();
            }
        }
        assert_eq!(
            layer.0,
            format!("{}/layer.tar", hex(&Sha256::digest(&layer.1)))
        );
        assert!(
            manifest.contains("x.example/y:v1") && manifest.contains(&layer.0),
            "{manifest}"
        );
    }
}
