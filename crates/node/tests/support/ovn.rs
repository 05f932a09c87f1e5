//! Real Open vSwitch and OVN in a folder of their own, in the namespace of the thread that starts them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::NODE;

/// The processes; they end with this.
pub struct Ovn {
    folder: TempDir,
    daemons: Mutex<Vec<(&'static str, Child)>>,
}

impl Ovn {
    /// Starts everything and waits until ovn-controller has registered its chassis.
    pub fn start() -> Self {
        let ovn = Self {
            folder: tempfile::tempdir().unwrap(),
            daemons: Mutex::default(),
        };
        let databases = [
            ("conf", "vswitch", "db.sock"),
            ("nb", "ovn-nb", "nb.sock"),
            ("sb", "ovn-sb", "sb.sock"),
        ];
        for (name, schema, socket) in databases {
            let file = ovn.text(&format!("{name}.db"));
            let schema = format!("../ovsdb/schemas/{schema}.ovsschema");
            ovn.tool("ovsdb-tool", &["create", &file, &schema]);
            let remote = format!("--remote=p{}", ovn.unix(socket));
            ovn.daemon("ovsdb-server", &[&file, &remote, "--no-chdir"], name);
            ovn.wait(socket);
        }
        ovn.vsctl(&["--no-wait", "init"]);
        let remote = format!("external_ids:ovn-remote={}", ovn.unix("sb.sock"));
        let id = format!("external_ids:system-id={NODE}");
        let set = ["--no-wait", "set", "Open_vSwitch", ".", &remote, &id];
        ovn.vsctl(
            &[
                &set[..],
                &[
                    "external_ids:ovn-encap-type=geneve",
                    "external_ids:ovn-encap-ip=127.0.0.1",
                    "external_ids:ovn-bridge-datapath-type=netdev",
                ],
            ]
            .concat(),
        );
        ovn.vsctl(&[
            "--no-wait",
            "add-br",
            "br-int",
            "--",
            "set",
            "bridge",
            "br-int",
            "datapath_type=netdev",
            "fail_mode=secure",
        ]);
        ovn.start_vswitchd();
        ovn.tool("ovn-nbctl", &["--no-leader-only", "init"]);
        ovn.tool("ovn-sbctl", &["--no-leader-only", "init"]);
        let (nb, sb) = (ovn.unix("nb.sock"), ovn.unix("sb.sock"));
        let (nb, sb) = (format!("--ovnnb-db={nb}"), format!("--ovnsb-db={sb}"));
        ovn.daemon("ovn-northd", &[&nb, &sb], "northd");
        ovn.start_controller();
        ovn.tool(
            "ovn-sbctl",
            &["--timeout=20", "wait-until", "chassis", NODE],
        );
        ovn
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    fn unix(&self, socket: &str) -> String {
        format!("unix:{}", self.text(socket))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for variable in [
            "OVS_RUNDIR",
            "OVS_DBDIR",
            "OVS_LOGDIR",
            "OVN_RUNDIR",
            "OVN_DBDIR",
            "OVN_LOGDIR",
        ] {
            command.env(variable, self.folder.path());
        }
        command.env("OVN_NB_DB", self.unix("nb.sock"));
        command.env("OVN_SB_DB", self.unix("sb.sock"));
        command
    }

    fn daemon(&self, program: &'static str, arguments: &[&str], name: &'static str) {
        let log = format!("--log-file={}", self.text(&format!("{name}.log")));
        let pid = format!("--pidfile={}", self.text(&format!("{name}.pid")));
        let control = format!("--unixctl={}", self.text(&format!("{name}.ctl")));
        let mut command = self.command(program);
        command.args(arguments).args([&log, &pid, "-vconsole:off"]);
        // ovn-controller(8) has no such option.
        if name != "controller" {
            command.arg(control);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.daemons.lock().unwrap().push((name, child));
    }

    /// Starts ovs-vswitchd (again).
    pub fn start_vswitchd(&self) {
        self.daemon(
            "ovs-vswitchd",
            &[&self.unix("db.sock"), "--no-chdir"],
            "vswitchd",
        );
        self.wait("vswitchd.ctl");
    }

    /// Starts ovn-controller (again). It clears the bridge.
    pub fn start_controller(&self) {
        self.daemon("ovn-controller", &[&self.unix("db.sock")], "controller");
    }

    /// Kills a process.
    pub fn kill(&self, name: &str) {
        let mut daemons = self.daemons.lock().unwrap();
        let at = daemons.iter().position(|(n, _)| *n == name).unwrap();
        let (_, mut child) = daemons.remove(at);
        child.kill().unwrap();
        child.wait().unwrap();
        for ending in ["ctl", "pid"] {
            let _ = std::fs::remove_file(self.path(&format!("{name}.{ending}")));
        }
    }

    /// Runs a tool to its end.
    pub fn tool(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program).args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn vsctl(&self, arguments: &[&str]) -> String {
        let db = format!("--db={}", self.unix("db.sock"));
        self.tool(
            "ovs-vsctl",
            &[&[db.as_str(), "--timeout=20"], arguments].concat(),
        )
    }

    pub fn nbctl(&self, arguments: &[&str]) -> String {
        self.tool("ovn-nbctl", &[&["--timeout=20"], arguments].concat())
    }

    /// A switch with a router's port of the first address of `network`; or of two, one of each family.
    pub fn switch(&self, router: &str, switch: &str, network: &str) {
        let (port, peer) = (format!("{router}-{switch}"), format!("{switch}-{router}"));
        let options = format!("router-port={port}");
        let number = self.nbctl(&["--bare", "--columns=_uuid", "list", "logical_router_port"]);
        let number = number.lines().filter(|line| !line.is_empty()).count() + 1;
        let mac = format!("0a:ff:00:00:00:{number:02x}");
        self.nbctl(&[
            "--may-exist",
            "ls-add",
            switch,
            "--",
            "--may-exist",
            "lr-add",
            router,
        ]);
        let networks: Vec<&str> = network.split(' ').collect();
        self.nbctl(&[&["lrp-add", router, &port, &mac], &networks[..]].concat());
        self.nbctl(&[
            "lsp-add",
            switch,
            &peer,
            "--",
            "lsp-set-type",
            &peer,
            "router",
            "--",
            "lsp-set-addresses",
            &peer,
            "router",
            "--",
            "lsp-set-options",
            &peer,
            &options,
        ]);
    }

    /// A logical port of one address, or of one of each family.
    pub fn port(&self, name: &str, switch: &str, mac: &str, ip: &str) {
        let addresses = format!("{mac} {ip}");
        self.nbctl(&[
            "--may-exist",
            "ls-add",
            switch,
            "--",
            "--may-exist",
            "lsp-add",
            switch,
            name,
            "--",
            "lsp-set-addresses",
            name,
            &addresses,
            "--",
            "lsp-set-port-security",
            name,
            &addresses,
        ]);
    }

    /// Names of the ports in the integration bridge that are Pods'.
    pub fn pod_ports(&self) -> Vec<String> {
        let ports = self.vsctl(&["list-ports", "br-int"]);
        ports
            .lines()
            .filter(|p| p.starts_with("yc"))
            .map(str::to_owned)
            .collect()
    }

    fn wait(&self, file: &str) {
        let (path, start) = (self.path(file), Instant::now());
        while !path.exists() {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "{file} did not appear"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Ovn {
    fn drop(&mut self) {
        let mut daemons = self.daemons.lock().unwrap_or_else(|e| e.into_inner());
        for (_, child) in daemons.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
