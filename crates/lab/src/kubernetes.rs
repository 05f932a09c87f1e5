//! etcd and Kubernetes' control plane on the control machine; a kubelet on each node.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::command::{run, succeeds};
use crate::layout::{Layout, Machine, SERVICE_CIDRS};
use crate::process::{Process, enter};
use crate::programs::Programs;

pub(crate) const ETCD: &str = "etcd";
pub(crate) const API_SERVER: &str = "kube-apiserver";
pub(crate) const CONTROLLER_MANAGER: &str = "kube-controller-manager";
pub(crate) const SCHEDULER: &str = "kube-scheduler";
pub(crate) const KUBELET: &str = "kubelet";

/// Variables that would send what is meant for the lab to a proxy.
pub(crate) const PROXIES: [&str; 6] = [
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "HTTP_PROXY",
    "http_proxy",
];

/// Long enough for a machine that is busy with builds.
const PATIENCE: Duration = Duration::from_secs(180);

fn start(
    layout: &Layout,
    programs: &Programs,
    part: &'static str,
    flags: &[String],
) -> Result<bool> {
    let mut words = enter(layout, Machine::Control)?;
    words.push(part.into());
    words.extend(flags.iter().map(OsString::from));
    Process {
        layout,
        machine: Machine::Control,
        part,
    }
    .start(words, &programs.path())
}

/// Starts etcd and the API server, and waits until the API server is ready.
pub(crate) fn start_api(layout: &Layout, programs: &Programs) -> Result<()> {
    let data = layout.machine_dir(Machine::Control).join("etcd");
    fs::create_dir_all(&data).with_context(|| format!("failed to make {}", data.display()))?;
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
    start(layout, programs, ETCD, &etcd_flags(&data))?;
    start(layout, programs, API_SERVER, &api_server_flags(layout))?;
    wait_api(layout, programs)
}

/// Waits until the API server answers that it is ready.
pub(crate) fn wait_api(layout: &Layout, programs: &Programs) -> Result<()> {
    let etcd = Process {
        layout,
        machine: Machine::Control,
        part: ETCD,
    };
    Process {
        layout,
        machine: Machine::Control,
        part: API_SERVER,
    }
    .wait_ready(PATIENCE, || {
        // Without etcd the API server would wait for long, and its log would not say why.
        etcd.wait_ready(Duration::ZERO, || Ok(true))?;
        Ok(succeeds(kubectl(layout, programs).args([
            "--request-timeout=5s",
            "get",
            "--raw",
            "/readyz",
        ])))
    })
}

/// A kubectl of this lab's version, as its administrator, from the root namespace.
pub(crate) fn kubectl(layout: &Layout, programs: &Programs) -> std::process::Command {
    let mut kubectl = std::process::Command::new(programs.toolchain.kubernetes.join("kubectl"));
    kubectl.env("KUBECONFIG", layout.kubeconfig());
    for name in PROXIES {
        kubectl.env_remove(name);
    }
    kubectl
}

/// The data of a lab is thrown away with it: it need not survive a power cut.
fn etcd_flags(data: &Path) -> Vec<String> {
    let (client, peer) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
    vec![
        "--name=lab".into(),
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=lab={peer}"),
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ]
}

fn api_server_flags(layout: &Layout) -> Vec<String> {
    let pki = layout.pki();
    let file = |name: &str| pki.join(name).display().to_string();
    let mut flags = vec![
        "--etcd-servers=http://127.0.0.1:2379".into(),
        "--bind-address=0.0.0.0".into(),
        "--secure-port=6443".into(),
        format!("--advertise-address={}", layout.address(Machine::Control)),
        format!("--service-cluster-ip-range={SERVICE_CIDRS}"),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        "--kubelet-preferred-address-types=InternalIP".into(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        "--requestheader-allowed-names=front-proxy-client".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        // No kube-proxy: aggregated API servers are reached at their endpoints.
        "--enable-aggregator-routing=true".into(),
    ];
    flags.extend(
        [
            ("client-ca-file", "ca.crt"),
            ("tls-cert-file", "apiserver.crt"),
            ("tls-private-key-file", "apiserver.key"),
            ("kubelet-certificate-authority", "ca.crt"),
            ("kubelet-client-certificate", "kubelet-client.crt"),
            ("kubelet-client-key", "kubelet-client.key"),
            ("service-account-key-file", "service-account.pub"),
            ("service-account-signing-key-file", "service-account.key"),
            ("requestheader-client-ca-file", "front-proxy-ca.crt"),
            ("proxy-client-cert-file", "front-proxy.crt"),
            ("proxy-client-key-file", "front-proxy.key"),
        ]
        .map(|(flag, name)| format!("--{flag}={}", file(name))),
    );
    flags
}

/// Starts the controller manager and the scheduler. The API server must be ready: before, they would fail for want of
/// the roles that it makes.
pub(crate) fn start_controllers(layout: &Layout, programs: &Programs) -> Result<()> {
    let kubeconfig = |part: &str| {
        layout
            .state()
            .join(format!("{part}.kubeconfig"))
            .display()
            .to_string()
    };
    let common = |part: &str| {
        let config = kubeconfig(part);
        vec![
            format!("--kubeconfig={config}"),
            format!("--authentication-kubeconfig={config}"),
            format!("--authorization-kubeconfig={config}"),
            "--bind-address=127.0.0.1".into(),
            "--leader-elect=false".into(),
        ]
    };
    let file = |name: &str| layout.pki().join(name).display().to_string();
    let mut flags = common(CONTROLLER_MANAGER);
    flags.extend([
        "--kube-api-qps=300".into(),
        "--kube-api-burst=600".into(),
        "--use-service-account-credentials=true".into(),
        // ycloud gives Pods their addresses.
        "--allocate-node-cidrs=false".into(),
        format!("--service-cluster-ip-range={SERVICE_CIDRS}"),
        format!(
            "--service-account-private-key-file={}",
            file("service-account.key")
        ),
        format!("--root-ca-file={}", file("ca.crt")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--cluster-signing-cert-file={}", file("ca.crt")),
        format!("--cluster-signing-key-file={}", file("ca.key")),
        format!(
            "--requestheader-client-ca-file={}",
            file("front-proxy-ca.crt")
        ),
    ]);
    start(layout, programs, CONTROLLER_MANAGER, &flags)?;
    start(layout, programs, SCHEDULER, &common(SCHEDULER))?;
    Ok(())
}

/// Starts a node's kubelet.
pub(crate) fn start_kubelet(layout: &Layout, machine: Machine, programs: &Programs) -> Result<()> {
    let folder = layout.machine_dir(machine);
    let config = folder.join("kubelet.json");
    fs::write(
        &config,
        serde_json::to_vec_pretty(&kubelet_config(layout, machine))?,
    )
    .with_context(|| format!("failed to write {}", config.display()))?;
    let mut words = enter(layout, machine)?;
    words.push(KUBELET.into());
    words.extend(
        [
            format!("--config={}", config.display()),
            format!(
                "--kubeconfig={}",
                folder.join("kubelet.kubeconfig").display()
            ),
            "--root-dir=/var/lib/kubelet".into(),
            "--cert-dir=/var/lib/kubelet/pki".into(),
            format!("--hostname-override={machine}"),
            format!(
                "--node-ip={},{}",
                layout.address(machine),
                layout.address_v6(machine)
            ),
        ]
        .map(OsString::from),
    );
    Process {
        layout,
        machine,
        part: KUBELET,
    }
    .start(words, &programs.path())?;
    Ok(())
}

/// `oomScoreAdj` and `maxOpenFiles`: what a machine without CAP_SYS_RESOURCE allows. Eviction and image collection are off:
/// the nodes share one disk, which is not theirs to clean.
fn kubelet_config(layout: &Layout, machine: Machine) -> serde_json::Value {
    let file = |name: &str| layout.pki().join(name).display().to_string();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": layout.address(machine),
        "port": 10250,
        "readOnlyPort": 0,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10248,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true, "cacheTTL": "2m0s"},
            "x509": {"clientCAFile": file("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": file(&format!("{machine}-serving.crt")),
        "tlsPrivateKeyFile": file(&format!("{machine}-serving.key")),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", layout.cgroup(machine)),
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": ["pods"],
        "failCgroupV1": false,
        "failSwapOn": false,
        "maxOpenFiles": 20000,
        "oomScoreAdj": 0,
        "clusterDomain": "cluster.local",
        "clusterDNS": ["10.96.0.10"],
        "resolvConf": "/etc/resolv.conf",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "podLogsDir": "/var/log/pods",
        "maxPods": 110,
        "registerNode": true,
        "rotateCertificates": false,
        "serverTLSBootstrap": false,
        "evictionHard": {
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "imageMinimumGCAge": "24h",
        "serializeImagePulls": false,
        "logging": {"verbosity": 2},
    })
}

/// Waits until every node is registered. Whether it is Ready depends on a CNI, which is not the lab's.
pub(crate) fn wait_nodes(layout: &Layout, programs: &Programs) -> Result<()> {
    for machine in layout.node_machines() {
        let name = machine.to_string();
        Process {
            layout,
            machine,
            part: KUBELET,
        }
        .wait_ready(PATIENCE, || {
            let found = run(kubectl(layout, programs).args([
                "--request-timeout=5s",
                "get",
                "node",
                &name,
                "-o",
                "name",
            ]));
            Ok(found.is_ok())
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::OvnVersion;

    #[test]
    fn two_labs_share_neither_cgroup_nor_address() {
        let one = Layout {
            name: "one".into(),
            index: 0,
            nodes: 1,
            ovn: OvnVersion::V25_03,
        };
        let two = Layout {
            name: "two".into(),
            index: 1,
            ..one.clone()
        };
        let (one, two) = (
            kubelet_config(&one, Machine::Node(1)),
            kubelet_config(&two, Machine::Node(1)),
        );
        for key in ["cgroupRoot", "address", "tlsCertFile"] {
            assert_ne!(one[key], two[key], "{key}");
        }
    }
}
