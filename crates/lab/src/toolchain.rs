//! Programs of Kubernetes, etcd and CoreDNS, built from the pinned Go modules in `go/` into the cache.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache;
use crate::command::{command, run, run_long};
use crate::progress::Step;

/// A Go module of the lab, and what is built from it.
struct Module {
    folder: &'static str,
    /// Program's name and package.
    programs: &'static [(&'static str, &'static str)],
}

const KUBERNETES: Module = Module {
    folder: "kubernetes",
    programs: &[
        ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
        (
            "kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
        ),
        ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
        ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ],
};
const ETCD: Module = Module {
    folder: "etcd",
    programs: &[("etcd", "go.etcd.io/etcd/server/v3")],
};
const IMAGES: Module = Module {
    folder: "images",
    programs: &[
        ("agnhost", "k8s.io/kubernetes/test/images/agnhost"),
        (
            "regression-issue-74839",
            "k8s.io/kubernetes/test/images/regression-issue-74839",
        ),
    ],
};
const COREDNS: Module = Module {
    folder: "coredns",
    programs: &[("coredns", ".")],
};

/// The server of VNics and probed Pods: our own, but for the gRPC library.
const SERVER: Module = Module {
    folder: "server",
    programs: &[("server", ".")],
};

const E2E: Module = Module {
    folder: "e2e",
    programs: &[
        ("e2e.test", "k8s.io/kubernetes/test/e2e"),
        ("ginkgo", "github.com/onsi/ginkgo/v2/ginkgo"),
    ],
};

/// Folders of the built programs.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    pub kubernetes: PathBuf,
    pub etcd: PathBuf,
    /// Programs of Kubernetes' test images.
    pub images: PathBuf,
    pub coredns: PathBuf,
    /// The folder of the program `server`.
    pub server: PathBuf,
    /// `pause.c` and agnhost's certificate, out of Kubernetes' sources.
    pub sources: PathBuf,
}

/// The folder `crates/lab` of the checkout that this program was started from.
pub(crate) fn crate_dir() -> PathBuf {
    let compiled_in = || PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(compiled_in, PathBuf::from)
}

/// Builds what is missing. The first time takes minutes and a download of Kubernetes' sources.
pub(crate) fn ensure(step: &Step) -> Result<Toolchain> {
    let go = crate_dir().join("go");
    Ok(Toolchain {
        kubernetes: build(&go, &KUBERNETES, step)?,
        etcd: build(&go, &ETCD, step)?,
        images: build(&go, &IMAGES, step)?,
        coredns: build(&go, &COREDNS, step)?,
        server: build(&go, &SERVER, step)?,
        sources: sources(&go, step)?,
    })
}

/// The folder of Kubernetes' own end-to-end tests, built if it is missing.
pub(crate) fn tests(step: &Step) -> Result<PathBuf> {
    build(&crate_dir().join("go"), &E2E, step)
}

/// The program `server`, built if it is missing.
pub(crate) fn server(step: &Step) -> Result<PathBuf> {
    Ok(build(&crate_dir().join("go"), &SERVER, step)?.join("server"))
}

/// Go's flag that puts Kubernetes' version, as the module requires it, into its programs.
fn linker_flags(go: &Path) -> Result<String> {
    let file = go.join(KUBERNETES.folder).join("go.mod");
    let text =
        fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
    let version = required(&text, "k8s.io/kubernetes")
        .with_context(|| format!("{} does not require k8s.io/kubernetes", file.display()))?;
    Ok(format!(
        "-s -w -X k8s.io/component-base/version.gitVersion={version}"
    ))
}

/// The version at which a go.mod requires `module`.
fn required<'a>(text: &'a str, module: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut words = line
            .trim()
            .trim_start_matches("require ")
            .split_whitespace();
        (words.next()? == module).then(|| words.next()).flatten()
    })
}

fn module_key(folder: &Path, flags: &str) -> Result<String> {
    let read = |file: &str| {
        let path = folder.join(file);
        fs::read(&path).with_context(|| format!("failed to read {}", path.display()))
    };
    let mut parts = vec![read("go.mod")?, read("go.sum")?, flags.into()];
    // A program of our own, made of others' packages.
    let mut sources = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))?
    {
        let name = entry?.file_name().to_string_lossy().into_owned();
        sources.extend(name.ends_with(".go").then_some(name));
    }
    sources.sort_unstable();
    for name in sources {
        parts.push(read(&name)?);
    }
    Ok(cache::key(parts))
}

fn build(go: &Path, module: &Module, step: &Step) -> Result<PathBuf> {
    let flags = linker_flags(go)?;
    let folder = go.join(module.folder);
    cache::entry(
        &format!("go-{}", module.folder),
        &module_key(&folder, &flags)?,
        |aside, _| {
            for (program, package) in module.programs {
                step.note(format!("go build {program}"));
                let words: &[&str] = if program.ends_with(".test") {
                    // Upstream has looked at its own code.
                    &["test", "-c", "-vet=off"]
                } else {
                    &["build"]
                };
                let mut build = command("go", words);
                build
                    .args(["-v", "-trimpath", &format!("-ldflags={flags}"), "-o"])
                    .arg(aside.join(program))
                    .arg(package)
                    .current_dir(&folder)
                    .env("CGO_ENABLED", "0");
                run_long(
                    &mut build,
                    &cache::log(&format!("go-build-{program}")),
                    step,
                )?;
            }
            Ok(())
        },
    )
}

/// The few files of Kubernetes' sources that go into images, copied so that the module cache may be cleaned.
fn sources(go: &Path, step: &Step) -> Result<PathBuf> {
    let folder = go.join(KUBERNETES.folder);
    cache::entry(
        "kubernetes-sources",
        &module_key(&folder, "")?,
        |aside, _| {
            step.note("finding Kubernetes' sources");
            let mut download = command("go", ["mod", "download", "k8s.io/kubernetes"]);
            run_long(
                download.current_dir(&folder),
                &cache::log("go-mod-download"),
                step,
            )?;
            let mut list = command("go", ["list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"]);
            let root = PathBuf::from(run(list.current_dir(&folder))?.trim());
            for file in [
                "build/pause/linux/pause.c",
                "test/images/agnhost/porter/localhost.crt",
                "test/images/agnhost/porter/localhost.key",
            ] {
                let from = root.join(file);
                let name = Path::new(file)
                    .file_name()
                    .context("a path without a file's name")?;
                fs::copy(&from, aside.join(name))
                    .with_context(|| format!("failed to copy {}", from.display()))?;
            }
            Ok(())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_required_version_is_found_in_blocks_and_lines() {
        let text = "module x\n\nrequire (\n\tk8s.io/kubernetes v1.35.4\n\tk8s.io/api v0.35.4 // indirect\n)\nrequire a.b/c v1.0.0\n";
        assert_eq!(required(text, "k8s.io/kubernetes"), Some("v1.35.4"));
        assert_eq!(required(text, "a.b/c"), Some("v1.0.0"));
        assert_eq!(required(text, "k8s.io/kube"), None);
    }

    #[test]
    fn the_modules_of_the_repository_can_be_keyed() {
        let go = crate_dir().join("go");
        let flags = linker_flags(&go).unwrap();
        assert!(flags.contains("gitVersion=v1."), "{flags}");
        for module in [KUBERNETES, ETCD, IMAGES, COREDNS, SERVER, E2E] {
            assert_eq!(
                module_key(&go.join(module.folder), &flags).unwrap().len(),
                12
            );
        }
    }
}
