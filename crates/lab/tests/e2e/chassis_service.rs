//! `deploy/chassis` as its README says, under a real systemd on the lab's chassis without a kubelet: the README's own commands, and the
//! unit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ycloud_lab::Machine;
use ycloud_lab::ask::Protocol;

use crate::asking::{Stream, assert_answer};
use crate::backends::{FAST, Mixed, assert_served};
use crate::cluster::{Printed, SLOW, SOON, Stopped, delete, eventually, kubectl, lab, on, the_lab};

const CHASSIS: &str = "dpu-1";
const AGENT: &str = "ycloud-cni";

/// A systemd in whose namespaces is the chassis of the lab. The lab's own agent is back once it is dropped.
struct Systemd {
    /// Above it.
    child: Child,
    /// The first of its PID namespace; 0 until it is known.
    pid: i32,
    /// The lab's own agent.
    stopped: Option<Stopped>,
}

impl Systemd {
    fn boot() -> Self {
        let program = the_lab().agent().expect("an agent");
        let stopped = Stopped::begin(CHASSIS, AGENT);
        let lab_name = the_lab().name().to_owned();
        // It ends with this process, and with the lab, in whose cgroup it is.
        let script = format!(
            "cgroup=$(awk '$3 == \"cgroup2\" {{ print $2; exit }}' /proc/mounts)/ycloud-lab/{lab_name}/{CHASSIS}/service
             mkdir -p \"$cgroup\" && echo $$ >\"$cgroup/cgroup.procs\" &&
             exec setpriv --pdeathsig KILL unshare --mount --pid --cgroup --fork --kill-child sh -c \"$1\" sh \"$2\" \"$3\""
        );
        let words: [&Path; 7] = [
            "sh".as_ref(),
            "-c".as_ref(),
            script.as_ref(),
            "sh".as_ref(),
            include_str!("chassis_service.sh").as_ref(),
            &deploy(),
            &program,
        ];
        let child = the_lab()
            .exec(Machine::Dpu, words)
            .expect("a chassis")
            .spawn();
        let child = child.expect("a process");
        let mut systemd = Self {
            child,
            pid: 0,
            stopped: Some(stopped),
        };
        systemd.pid = eventually("systemd runs", SOON, || {
            let pid = systemd.child.id();
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let first = children.unwrap_or_default().trim().parse::<i32>();
            let first = first.map_err(|error| error.to_string())?;
            match fs::read_to_string(format!("/proc/{first}/comm")) {
                Ok(name) if name.trim() == "systemd" => Ok(first),
                other => Err(format!("{other:?}")),
            }
        });
        eventually("systemd answers", SOON, || {
            let printed = systemd.run(Path::new("/"), "systemctl is-system-running");
            match printed.out.trim() {
                "running" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
        systemd
    }

    /// Runs a shell in its namespaces.
    fn run(&self, folder: &Path, script: &str) -> Printed {
        let pid = self.pid.to_string();
        let script = format!(
            "export SYSTEMD_UNIT_PATH=/etc/systemd/system\ncd {}\n{script}",
            folder.display()
        );
        let words = [
            "nsenter", "-t", &pid, "-m", "-p", "--", "sh", "-euc", &script,
        ];
        lab(&[&["exec", CHASSIS, "--"], &words[..]].concat())
    }

    /// The agent's, as the machine knows it.
    fn agent(&self) -> Option<i32> {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid));
        let children = children.unwrap_or_default();
        let mut children = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok());
        children.find(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == AGENT)
        })
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // All in its PID namespace end with it.
        let ended = match self.pid {
            0 => self.child.kill(),
            pid => kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(Into::into),
        };
        // It ends once they have.
        let ended = ended.and_then(|()| self.child.wait());
        if let Err(error) = ended {
            eprintln!("clean-up: {error}");
        }
        drop(self.stopped.take());
    }
}

/// The repository's `deploy/chassis`: of the checkout that the test runs in, not of the one that it was compiled in.
fn deploy() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo and by nextest");
    Path::new(&package).join("../../deploy/chassis")
}

/// The commands of the README, block by block.
fn commands() -> Vec<String> {
    let readme = fs::read_to_string(deploy().join("README.md")).expect("a README");
    let blocks = readme.split("```").skip(1).step_by(2);
    let unindented = |block: &str| -> String {
        let lines = block.lines().skip(1);
        lines
            .map(|line| format!("{}\n", line.strip_prefix("   ").unwrap_or(line)))
            .collect()
    };
    blocks.map(unindented).collect()
}

/// What the API server's certificate is signed by.
fn authority() -> String {
    let jsonpath = "jsonpath={.data.ca\\.crt}";
    let words = [
        "-n",
        "default",
        "get",
        "configmap",
        "kube-root-ca.crt",
        "-o",
        jsonpath,
    ];
    kubectl(&words).must()
}

fn is_ready() -> Result<(), String> {
    let printed = on(CHASSIS, "curl -sf -m 2 http://127.0.0.1:9440/readyz");
    match printed.ok {
        true => Ok(()),
        false => Err(printed.out + &printed.err),
    }
}

#[test]
fn alone_a_chassis_without_a_kubelet_has_its_agent_as_a_service() {
    let mixed = Mixed::fast("be-service");
    let systemd = Systemd::boot();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let blocks = commands();
    let [on_chassis, by_administrator, configure] = &blocks[..] else {
        panic!("three blocks of commands, not {blocks:?}");
    };
    systemd.run(folder, on_chassis).must();
    let csr = format!("ycloud-chassis-{CHASSIS}");
    let administrator = format!(
        "chassis={CHASSIS}\ncd {}\n{by_administrator}",
        folder.display()
    );
    let environment = the_lab().environment().expect("a lab");
    let shell = std::process::Command::new("sh")
        .args(["-euc", &administrator])
        .envs(environment)
        .status();
    assert!(
        shell.is_ok_and(|status| status.success()),
        "{administrator}"
    );
    fs::write(folder.join("ca.crt"), authority()).expect("a file");
    systemd
        .run(folder, "cp ca.crt client.crt /etc/ycloud")
        .must();
    systemd.run(folder, configure).must();
    systemd
        .run(folder, "systemctl enable --now ycloud-cni")
        .must();
    eventually("the agent is ready", SLOW, is_ready);
    delete("", "certificatesigningrequest", &csr);
    assert_answer(&mixed.client, mixed.to, &FAST);

    // It is killed more often than systemd starts a service again by default, five times in ten seconds, and no client notices.
    let stream = Stream::start(
        &mixed.client,
        Protocol::Tcp,
        mixed.to,
        Duration::from_millis(50),
    );
    let mut last = 0;
    for _ in 0..12 {
        let agent = eventually("systemd starts the agent again", SOON, || {
            systemd
                .agent()
                .filter(|pid| *pid != last)
                .ok_or_else(|| "none".to_owned())
        });
        kill(Pid::from_raw(agent), Signal::SIGKILL).expect("a process of systemd's");
        last = agent;
    }
    eventually("the agent is ready again", SLOW, is_ready);
    assert_served(&stream.finish());
    let probe = &mixed.scene.probes()["bm"]["status"];
    assert_eq!(
        (&probe["state"], &probe["prober"]),
        (&"Healthy".into(), &CHASSIS.into())
    );

    // It stops when it is told to, and leaves what the next one shall know.
    let stopped = systemd.run(
        folder,
        "systemctl stop ycloud-cni; systemctl show -p Result --value ycloud-cni; ls /run/ycloud",
    );
    assert_eq!(stopped.must(), "success\nload-balancers\n");
    assert_eq!(systemd.agent(), None);
}
