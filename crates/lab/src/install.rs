//! ycloud on the lab's cluster, installed as a user would: `kubectl apply -k` on `deploy/` with a patch of its ConfigMap.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::agent;
use crate::bringup;
use crate::command::run;
use crate::image::Profile;
use crate::lab::Lab;
use crate::layout::{Machine, POD_CIDR_V6};
use crate::progress::Progress;
use crate::state;
use crate::toolchain::crate_dir;

/// Namespace of ycloud's workloads, as in `deploy/`.
const NAMESPACE: &str = "ycloud-system";
/// What must be running before ycloud is installed.
const WORKLOADS: [&str; 3] = [
    "deployment/ycloud-controller",
    "deployment/yusurservice-controller",
    "daemonset/ycloud-cni",
];

impl Lab {
    /// Installs ycloud, or brings the installed one up to this checkout, and waits until it runs and every node is
    /// Ready.
    ///
    /// # Errors
    /// Names the workload that does not come up, with its Pods' last words.
    pub fn install(&self, profile: Profile) -> Result<()> {
        let progress = Progress::new();
        let build = {
            let _lock = state::lock_lab(self.name())?;
            bringup::load(&self.layout()?, profile, &progress)?
        };
        let deploy = self.overlay()?;
        progress.step("kubectl apply -k deploy/", |_| {
            run(self
                .kubectl(["apply", "--server-side", "--force-conflicts", "-k"])?
                .arg(&deploy))
        })?;
        self.restart_old_build(&build)?;
        for workload in WORKLOADS {
            progress.step(&format!("{workload} runs"), |_| {
                let status = [
                    "-n",
                    NAMESPACE,
                    "rollout",
                    "status",
                    workload,
                    "--timeout=180s",
                ];
                run(&mut self.kubectl(status)?).with_context(|| {
                    let component = workload.rsplit('/').next().unwrap_or(workload);
                    let selector = format!("app.kubernetes.io/component={component}");
                    self.last_words(NAMESPACE, &selector)
                })
            })?;
        }
        progress.step(&format!("{} on {}", agent::AGENT, Machine::Dpu), |_| {
            let _lock = state::lock_lab(self.name())?;
            let (layout, programs) = self.parts()?;
            agent::install(&layout, Machine::Dpu, &programs)
        })?;
        progress.step("nodes are Ready", |_| {
            run(&mut self.kubectl([
                "wait",
                "--for=condition=Ready",
                "nodes",
                "--all",
                "--timeout=120s",
            ])?)
        })?;
        self.dns(&progress)
    }

    /// A folder with a kustomization: `deploy/`, and what the lab's cluster has beyond its defaults.
    fn overlay(&self) -> Result<PathBuf> {
        let folder = self.layout()?.state().join("deploy");
        fs::create_dir_all(&folder)
            .with_context(|| format!("failed to make {}", folder.display()))?;
        let kustomization = kustomization(&folder, &repository().join("deploy"));
        state::write_aside(&folder.join("kustomization.yaml"), kustomization.as_bytes())?;
        Ok(folder)
    }

    /// The cluster's DNS: an ordinary workload, whose Pods and Service are ycloud's.
    fn dns(&self, progress: &Progress) -> Result<()> {
        progress.step("CoreDNS answers", |step| {
            let manifest = self.layout()?.state().join("coredns.yaml");
            state::write_aside(&manifest, include_bytes!("coredns.yaml"))?;
            run(self
                .kubectl(["apply", "--server-side", "--force-conflicts", "-f"])?
                .arg(&manifest))?;
            step.note("waiting for its Pods");
            let status = [
                "-n",
                "kube-system",
                "rollout",
                "status",
                "deployment/coredns",
                "--timeout=120s",
            ];
            run(&mut self.kubectl(status)?)
                .with_context(|| self.last_words("kube-system", "k8s-app=kube-dns"))
        })?;
        Ok(())
    }

    /// Pods keep the image that they started with; one that was built since needs new Pods.
    fn restart_old_build(&self, build: &Path) -> Result<()> {
        let build = build.to_string_lossy();
        let marker = self.layout()?.state().join("installed-build");
        let old = fs::read_to_string(&marker).unwrap_or_default();
        if !old.is_empty() && old != *build {
            for workload in WORKLOADS {
                run(&mut self.kubectl(["-n", NAMESPACE, "rollout", "restart", workload])?)?;
            }
        }
        state::write_aside(&marker, build.as_bytes())
    }

    /// What the selected Pods printed last, and what the cluster says about them.
    fn last_words(&self, namespace: &str, selector: &str) -> String {
        let asked = [
            vec!["-n", namespace, "get", "pods", "-l", selector, "-o", "wide"],
            vec![
                "-n",
                namespace,
                "logs",
                "-l",
                selector,
                "--tail=8",
                "--prefix",
                "--all-containers",
            ],
        ];
        asked
            .iter()
            .map(|words| match self.kubectl(words) {
                Ok(mut command) => run(&mut command).unwrap_or_else(|error| format!("{error:#}\n")),
                Err(error) => format!("{error:#}\n"),
            })
            .collect()
    }
}

/// A kustomization in `folder` that has `deploy` with IPv6 for the default Vpc. Kustomize takes relative paths only.
fn kustomization(folder: &Path, deploy: &Path) -> String {
    let up = "../".repeat(folder.components().count() - 1);
    let deploy = deploy.display().to_string();
    format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [{up}{}]
patches:
  - patch: |
      apiVersion: v1
      kind: ConfigMap
      metadata: {{name: ycloud, namespace: {NAMESPACE}}}
      data: {{DEFAULT_SUBNET_IPV6_CIDR: \"{POD_CIDR_V6}\", MTU_CHECK: everywhere}}
",
        deploy.trim_start_matches('/')
    )
}

/// The checkout that this program was built from.
pub(crate) fn repository() -> PathBuf {
    let crate_dir = crate_dir();
    crate_dir
        .ancestors()
        .nth(2)
        .map_or_else(|| crate_dir.clone(), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kustomization_finds_the_deployment_from_its_folder() {
        let text = kustomization(Path::new("/var/lib/x/deploy"), Path::new("/src/deploy"));
        assert!(
            text.contains("resources: [../../../../src/deploy]\n"),
            "{text}"
        );
    }
}
