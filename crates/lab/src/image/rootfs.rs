//! The files of an image, gathered from programs of the machine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tar::{Builder, EntryType, Header};

use crate::cache::stamp;
use crate::command::{command, run};

/// One entry of an image's file system.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Folder {
        mode: u32,
    },
    /// A copy of a file of the machine.
    Copy {
        from: PathBuf,
        mode: u32,
    },
    Text {
        content: String,
        mode: u32,
    },
    Link {
        target: String,
    },
}

/// An image's file system. Paths are relative and sorted, so that equal files always make the same bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rootfs {
    entries: BTreeMap<String, Entry>,
}

impl Rootfs {
    /// What every image has: the usual folders, users, and name lookup by files and DNS.
    pub fn new() -> Self {
        let mut rootfs = Self::default();
        for folder in ["dev", "etc", "proc", "root", "run", "sys", "var/run"] {
            rootfs.folder(folder, 0o755);
        }
        rootfs.folder("tmp", 0o1777);
        rootfs.text(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        );
        rootfs.text("etc/group", "root:x:0:\nnogroup:x:65534:\n");
        rootfs.text("etc/nsswitch.conf", "hosts: files dns\n");
        rootfs
    }

    pub fn folder(&mut self, path: &str, mode: u32) {
        self.put(path, Entry::Folder { mode });
    }

    pub fn text(&mut self, path: &str, content: &str) {
        self.put(
            path,
            Entry::Text {
                content: content.to_owned(),
                mode: 0o644,
            },
        );
    }

    /// Adds to a file that [`Rootfs::text`] wrote.
    pub fn append(&mut self, path: &str, more: &str) {
        if let Some(Entry::Text { content, .. }) = self.entries.get_mut(path) {
            content.push_str(more);
        }
    }

    pub fn link(&mut self, path: &str, target: &str) {
        self.put(
            path,
            Entry::Link {
                target: target.to_owned(),
            },
        );
    }

    pub fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    /// Copies a file that is no program.
    pub fn copy(&mut self, from: &Path, to: &str) {
        self.put(
            to,
            Entry::Copy {
                from: from.to_owned(),
                mode: 0o644,
            },
        );
    }

    /// Copies a program, and every library it is linked with to where the dynamic linker will look for it.
    pub fn program(&mut self, from: &Path, to: &str) -> Result<()> {
        let from = from
            .canonicalize()
            .with_context(|| format!("failed to find {}", from.display()))?;
        for library in libraries(&from)? {
            let real = library
                .canonicalize()
                .with_context(|| format!("failed to find {}", library.display()))?;
            let to = library.to_string_lossy().trim_start_matches('/').to_owned();
            if to.ends_with("/libc.so.6") {
                // Opened at run time for name lookups, so that ldd does not name them.
                for module in ["libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"] {
                    let from = library.with_file_name(module);
                    let to = to.replace("libc.so.6", module);
                    self.put(
                        &to,
                        Entry::Copy {
                            from: from.canonicalize().unwrap_or(from),
                            mode: 0o755,
                        },
                    );
                }
            }
            self.put(
                &to,
                Entry::Copy {
                    from: real,
                    mode: 0o755,
                },
            );
        }
        self.put(to, Entry::Copy { from, mode: 0o755 });
        Ok(())
    }

    fn put(&mut self, path: &str, entry: Entry) {
        for (end, _) in path.match_indices('/') {
            self.entries
                .entry(path[..end].to_owned())
                .or_insert(Entry::Folder { mode: 0o755 });
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// What tells this file system from another, without reading the copied files.
    pub fn stamps(&self) -> Result<Vec<String>> {
        let stamp = |(path, entry): (&String, &Entry)| {
            let what = match entry {
                Entry::Copy { from, mode } => format!("{mode:o} {}", stamp(from)?),
                other => format!("{other:?}"),
            };
            Ok(format!("{path} {what}"))
        };
        self.entries.iter().map(stamp).collect()
    }

    /// Writes the file system as a tar: owned by root, dated 1970, sorted.
    pub fn write(&self, out: impl Write) -> Result<()> {
        let mut tar = Builder::new(out);
        for (path, entry) in &self.entries {
            let mut header = Header::new_gnu();
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            match entry {
                Entry::Folder { mode } => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(*mode);
                    tar.append_data(&mut header, format!("{path}/"), std::io::empty())?;
                }
                Entry::Link { target } => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_mode(0o777);
                    tar.append_link(&mut header, path, target)?;
                }
                Entry::Text { content, mode } => {
                    header.set_mode(*mode);
                    header.set_size(content.len() as u64);
                    tar.append_data(&mut header, path, content.as_bytes())?;
                }
                Entry::Copy { from, mode } => {
                    let file = File::open(from)
                        .with_context(|| format!("failed to open {}", from.display()))?;
                    header.set_mode(*mode);
                    header.set_size(file.metadata()?.len());
                    tar.append_data(&mut header, path, file)?;
                }
            }
        }
        tar.into_inner()?.flush()?;
        Ok(())
    }
}

/// The libraries that `program` is linked with, the dynamic linker among them. None for a static program.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let head =
        fs::read(program).with_context(|| format!("failed to read {}", program.display()))?;
    if !head.starts_with(b"\x7fELF") {
        bail!(
            "{} is not a program that an image can hold: it is no ELF file",
            program.display()
        );
    }
    // ldd ends with 1 for a static program, which is no failure here.
    match run(command("ldd", [program]).env("LC_ALL", "C")) {
        Ok(listed) => named_libraries(&listed, program),
        Err(error) if format!("{error:#}").contains("not a dynamic executable") => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn named_libraries(listed: &str, program: &Path) -> Result<Vec<PathBuf>> {
    if let Some(line) = listed.lines().find(|line| line.contains("not found")) {
        bail!(
            "{} needs a library that is not there: {}",
            program.display(),
            line.trim()
        );
    }
    let words = listed.split_whitespace();
    Ok(words
        .filter(|word| word.starts_with('/') && word.contains(".so"))
        .map(PathBuf::from)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_is_understood() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x0007f)\n";
        let found = named_libraries(listed, Path::new("x")).unwrap();
        assert_eq!(
            found,
            [
                PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"),
                "/lib64/ld-linux-x86-64.so.2".into()
            ]
        );
        assert!(named_libraries("libx.so => not found", Path::new("x")).is_err());
        assert!(
            named_libraries("\tstatically linked\n", Path::new("x"))
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn the_same_files_make_the_same_bytes_in_any_order() {
        let bytes = |rootfs: &Rootfs| {
            let mut out = Vec::new();
            rootfs.write(&mut out).unwrap();
            out
        };
        let (mut one, mut two) = (Rootfs::new(), Rootfs::new());
        one.text("a/b/c", "x");
        one.link("bin/sh", "dash");
        two.link("bin/sh", "dash");
        two.text("a/b/c", "x");
        assert_eq!(bytes(&one), bytes(&two));
        assert_eq!(one.stamps().unwrap(), two.stamps().unwrap());
        let content = bytes(&one);
        let names: Vec<String> = tar::Archive::new(&*content)
            .entries()
            .unwrap()
            .map(|entry| {
                entry
                    .unwrap()
                    .path()
                    .unwrap()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        assert!(
            names.contains(&"a/b/c".to_owned()) && names.contains(&"a/b/".to_owned()),
            "{names:?}"
        );
    }

    #[test]
    fn a_program_brings_its_libraries() {
        let mut rootfs = Rootfs::new();
        rootfs.program(Path::new("/bin/dash"), "bin/dash").unwrap();
        assert!(rootfs.contains("bin/dash"));
        assert!(
            rootfs
                .entries
                .keys()
                .any(|path| path.ends_with("/libc.so.6"))
        );
        assert!(
            rootfs
                .entries
                .keys()
                .any(|path| path.ends_with("/libnss_dns.so.2"))
        );
    }
}
