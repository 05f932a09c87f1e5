//! A containerd image store with every image imported and unpacked, made once and hard-linked into each new node.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cache;
use crate::command::{command, run, succeeds, tail, wait_until};
use crate::layout::RUNTIME;
use crate::progress::Step;

/// The store of the archives in `images`.
pub(crate) fn ensure(images: &Path, step: &Step) -> Result<PathBuf> {
    let key = cache::key([images.to_string_lossy().as_bytes()]);
    let store = cache::entry("image-store", &key, |aside, _| {
        step.note("starting a containerd");
        let state = Path::new(RUNTIME).join("image-store");
        let _ = fs::remove_dir_all(&state);
        fs::create_dir_all(&state)
            .with_context(|| format!("failed to make {}", state.display()))?;
        let result = import_all(images, aside, &state, step);
        fs::remove_dir_all(&state)
            .with_context(|| format!("failed to remove {}", state.display()))?;
        result
    })?;
    cache::prune("image-store", &store)?;
    Ok(store)
}

fn import_all(images: &Path, root: &Path, state: &Path, step: &Step) -> Result<()> {
    let (socket, config) = (state.join("containerd.sock"), state.join("config.toml"));
    fs::write(
        &config,
        format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = \"{}\"\n",
            root.display(),
            state.display(),
            socket.display()
        ),
    )?;
    let log = cache::log("image-store");
    let output = fs::File::create(&log)?;
    // Ends with this program, in whatever way that does.
    let mut daemon = command("setpriv", ["--pdeathsig", "KILL", "containerd", "--config"])
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()
        .context("failed to start containerd")?;
    let ctr = |words: &[&str]| {
        let mut ctr = command("ctr", ["-a"]);
        ctr.arg(&socket).args(words);
        ctr
    };
    let result = (|| {
        let up = wait_until(Duration::from_secs(60), Duration::from_millis(100), || {
            Ok(succeeds(&mut ctr(&["version"])))
        });
        if !up? {
            bail!("containerd did not start\n{}", tail(&log, 15));
        }
        for entry in fs::read_dir(images)? {
            let image = entry?.path();
            step.note(format!("importing {}", image.display()));
            run(ctr(&[
                "-n",
                "k8s.io",
                "images",
                "import",
                "--snapshotter",
                "overlayfs",
            ])
            .arg(&image))?;
        }
        Ok(())
    })();
    crate::process::end(&[i32::try_from(daemon.id())?], Duration::from_secs(10));
    daemon.wait().context("failed to wait for containerd")?;
    result
}

/// Fills the folder `node`, which must not exist, with the store: hard links to what is never written again (blobs and
/// unpacked layers), copies of the databases.
pub(crate) fn place(store: &Path, node: &Path) -> Result<()> {
    let aside = node.with_extension("new");
    let _ = fs::remove_dir_all(&aside);
    if run(command("cp", ["-al"]).arg(store).arg(&aside)).is_err() {
        // The cache is on another file system.
        let _ = fs::remove_dir_all(&aside);
        run(command("cp", ["-a"]).arg(store).arg(&aside))?;
    }
    for database in
        run(command("find", [store]).args(["-name", "*.db", "-printf", "%P\n"]))?.lines()
    {
        run(command("cp", ["-a", "--remove-destination"])
            .arg(store.join(database))
            .arg(aside.join(database)))?;
    }
    fs::rename(&aside, node).with_context(|| format!("failed to rename {}", aside.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn blobs_are_linked_and_databases_copied() {
        let folder = tempfile::tempdir().unwrap();
        let (store, node) = (folder.path().join("store"), folder.path().join("node"));
        fs::create_dir_all(store.join("blobs")).unwrap();
        fs::write(store.join("blobs/x"), "blob").unwrap();
        fs::write(store.join("meta.db"), "one").unwrap();
        place(&store, &node).unwrap();
        fs::write(node.join("meta.db"), "two").unwrap();
        assert_eq!(fs::read_to_string(store.join("meta.db")).unwrap(), "one");
        let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
        assert_eq!(inode(store.join("blobs/x")), inode(node.join("blobs/x")));
    }
}
