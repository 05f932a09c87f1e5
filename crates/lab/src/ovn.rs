//! OVN's databases and northd on the control machine; Open vSwitch and ovn-controller on each chassis.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command::{command, run, succeeds};
use crate::ext;
use crate::layout::{Layout, Machine, Network};
use crate::process::{Process, enter};
use crate::programs::Programs;

pub(crate) const NB: &str = "ovn-nb";
pub(crate) const SB: &str = "ovn-sb";
pub(crate) const NORTHD: &str = "ovn-northd";
pub(crate) const OVSDB: &str = "ovsdb-server";
pub(crate) const VSWITCHD: &str = "ovs-vswitchd";
pub(crate) const CONTROLLER: &str = "ovn-controller";
/// Keeps the node's addresses on `br-phy`.
pub(crate) const ADDRESS: &str = "address";

/// Milliseconds without a word after which a database asks whether a client is still there. The servers' own 5 s are too
/// little on a machine that builds at the same time.
const PROBE: u32 = 60_000;

/// A Northbound or Southbound database.
struct Database {
    part: &'static str,
    /// Of the database in its schema.
    name: &'static str,
    /// Its only row's table.
    global: &'static str,
    port: u16,
    client: &'static str,
}

const DATABASES: [Database; 2] = [
    Database {
        part: NB,
        name: "OVN_Northbound",
        global: "NB_Global",
        port: 6641,
        client: "ovn-nbctl",
    },
    Database {
        part: SB,
        name: "OVN_Southbound",
        global: "SB_Global",
        port: 6642,
        client: "ovn-sbctl",
    },
];

fn socket(layout: &Layout, part: &str) -> PathBuf {
    layout.ovn_run().join(format!("{part}.sock"))
}

/// How a program that runs on this machine, in whatever namespace, names the database.
pub(crate) fn remote(layout: &Layout, part: &str) -> String {
    format!("unix:{}", socket(layout, part).display())
}

/// The niceness that packages give to what packets wait for (`ovs-ctl`, `ovn-ctl`). On a machine with more to do than it has
/// processors for, BFD would else find that nodes are dead, and move their gateways.
const NICENESS: &str = "-10";
/// That of an ovn-controller. 25.03's turns in circles for as long as its ovs-vswitchd is dead (inc-proc-eng.c: a recompute that
/// is wanted at once, and cannot be done). Of a machine by itself that takes one processor of many; here it would take one of
/// two from all machines, and what died on one node would stop connections through others.
const CONTROLLER_NICENESS: &str = "-3";

/// `words`, to be started before what others run. Where sessions share a processor evenly (sched(7), autogroup), the
/// session counts, not the process.
fn urgent(niceness: &str, words: Vec<OsString>) -> Vec<OsString> {
    let script = r#"echo "$0" 2>/dev/null >/proc/self/autogroup; exec nice -n "$0" "$@""#;
    let mut all: Vec<OsString> = vec!["sh".into(), "-c".into(), script.into(), niceness.into()];
    all.extend(words);
    all
}

/// Options that every daemon gets: its log where the lab keeps logs, nothing on the console.
fn logging(process: &Process<'_>) -> [OsString; 3] {
    [
        "-vconsole:off".into(),
        "-vsyslog:off".into(),
        option("--log-file", process.log()),
    ]
}

fn option(name: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut text = OsString::from(name);
    text.push("=");
    text.push(value);
    text
}

/// Starts the databases and northd.
pub(crate) fn start_central(layout: &Layout, programs: &Programs) -> Result<()> {
    let run_folder = layout.ovn_run();
    fs::create_dir_all(&run_folder)
        .with_context(|| format!("failed to make {}", run_folder.display()))?;
    for database in &DATABASES {
        start_database(layout, database, programs)?;
    }
    let process = Process {
        layout,
        machine: Machine::Control,
        part: NORTHD,
    };
    let mut words = enter(layout, Machine::Control)?;
    words.push("env".into());
    words.push(option("OVN_RUNDIR", &run_folder));
    words.push("ovn-northd".into());
    words.push(format!("--ovnnb-db={}", remote(layout, NB)).into());
    words.push(format!("--ovnsb-db={}", remote(layout, SB)).into());
    words.push(option("--pidfile", run_folder.join("ovn-northd.pid")));
    words.extend(logging(&process));
    process.start(urgent(NICENESS, words), &programs.path())?;
    process.wait_ready(Duration::from_secs(30), || {
        Ok(run_folder.join("ovn-northd.pid").exists())
    })
}

fn start_database(layout: &Layout, database: &Database, programs: &Programs) -> Result<()> {
    let (part, run_folder) = (database.part, layout.ovn_run());
    let folder = layout.machine_dir(Machine::Control);
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let file = folder.join(format!("{part}.db"));
    create(&file, &programs.ovn.schema(part), programs)?;
    let process = Process {
        layout,
        machine: Machine::Control,
        part,
    };
    let mut words = enter(layout, Machine::Control)?;
    words.push("ovsdb-server".into());
    words.push(file.into());
    words.push(format!("--remote=p{}", remote(layout, part)).into());
    words.push(
        format!(
            "--remote=db:{},{},connections",
            database.name, database.global
        )
        .into(),
    );
    words.push(option("--pidfile", run_folder.join(format!("{part}.pid"))));
    words.push(option("--unixctl", run_folder.join(format!("{part}.ctl"))));
    words.extend(logging(&process));
    process.start(words, &programs.path())?;
    let client = |words: &[&str]| {
        let mut client = command(
            programs.ovn.bin().join(database.client),
            ["--no-leader-only", "--timeout=10"],
        );
        client
            .arg(format!("--db={}", remote(layout, part)))
            .args(words);
        client
    };
    process.wait_ready(Duration::from_secs(60), || {
        Ok(succeeds(&mut client(&["init"])))
    })?;
    let wanted = format!("ptcp:{}:0.0.0.0", database.port);
    if run(&mut client(&["get-connection"]))?
        .lines()
        .all(|line| !line.contains(&wanted))
    {
        let probe = format!("inactivity_probe={PROBE}");
        run(&mut client(&[
            "set-connection",
            &wanted,
            "--",
            "set",
            "connection",
            ".",
            &probe,
        ]))?;
    }
    Ok(())
}

/// Makes a database of a schema, unless it is there.
fn create(file: &Path, schema: &Path, programs: &Programs) -> Result<()> {
    if file.exists() {
        return Ok(());
    }
    let aside = file.with_extension("partial");
    let _ = fs::remove_file(&aside);
    run(command(programs.ovn.bin().join("ovsdb-tool"), ["create"])
        .arg(&aside)
        .arg(schema))?;
    fs::rename(&aside, file).with_context(|| format!("failed to rename {}", aside.display()))
}

/// The kind of datapath that nodes get: the kernel's where it has Open vSwitch, else the one in userspace.
fn datapath() -> &'static str {
    let there = || Path::new("/sys/module/openvswitch").exists();
    // Where it is built in, or loaded already, nothing is to be loaded.
    if there() || (succeeds(&mut command("modprobe", ["-q", "openvswitch"])) && there()) {
        "system"
    } else {
        "netdev"
    }
}

/// Starts Open vSwitch on a node, and puts the node's addresses on `br-phy`.
pub(crate) fn start_switch(layout: &Layout, machine: Machine, programs: &Programs) -> Result<()> {
    let datapath = datapath();
    start_ovsdb(layout, machine, programs)?;
    configure(layout, machine, datapath, programs)?;
    let process = Process {
        layout,
        machine,
        part: VSWITCHD,
    };
    let mut words = enter(layout, machine)?;
    // Restarted at once when it crashes: the userspace conntrack of Open vSwitch 3.1 does.
    words.extend([
        "ovs-vswitchd".into(),
        "--monitor".into(),
        "--pidfile".into(),
    ]);
    words.extend(logging(&process));
    process.start(urgent(NICENESS, words), &programs.path())?;
    process.wait_ready(Duration::from_secs(60), || {
        Ok(succeeds(&mut within(
            layout,
            machine,
            programs,
            &["ovs-appctl", "-t", "ovs-vswitchd", "version"],
        )?))
    })?;
    let on_ext = Network::of(machine).contains(&Network::Ext);
    let words = bridges(datapath, layout.address(machine), on_ext);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    run(&mut within(layout, machine, programs, &words)?)?;
    start_address(layout, machine, programs)
}

/// The `ovs-vsctl` that makes a chassis' bridges: `br-phy` with the underlay, `br-int`, and, where the physical network of elastic
/// addresses is, `br-ext` with it (its VLAN 100 by a port of its own, so none of it may go by the other).
///
/// The MAC of `br-phy` follows from the node's address. Otherwise Open vSwitch chooses one at random at each start where its
/// datapath is in user space, and after a restart the others' ARP caches would send the node's packets to nobody.
fn bridges(datapath: &str, address: Ipv4Addr, on_ext: bool) -> Vec<String> {
    let [a, b, c, d] = address.octets();
    let mut commands = vec![
        format!(
            "--may-exist add-br br-phy -- set bridge br-phy datapath_type={datapath} \
             other_config:hwaddr=06:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}"
        ),
        "--may-exist add-port br-phy eth0".to_owned(),
        format!(
            "--may-exist add-br br-int -- set bridge br-int datapath_type={datapath} fail_mode=secure other_config:disable-in-band=true"
        ),
    ];
    if on_ext {
        commands.extend([
            format!("--may-exist add-br br-ext -- set bridge br-ext datapath_type={datapath}"),
            "--may-exist add-port br-ext eth1 -- set port eth1 trunks=0".to_owned(),
            format!(
                "--may-exist add-port br-ext eth2 -- set port eth2 tag={}",
                ext::VLAN
            ),
        ]);
    }
    format!("ovs-vsctl --timeout=60 -- {}", commands.join(" -- "))
        .split(' ')
        .map(str::to_owned)
        .collect()
}

fn start_ovsdb(layout: &Layout, machine: Machine, programs: &Programs) -> Result<()> {
    let file = layout.machine_dir(machine).join("ovs/conf.db");
    create(&file, &programs.ovn.schema("vswitch"), programs)?;
    let process = Process {
        layout,
        machine,
        part: OVSDB,
    };
    let mut words = enter(layout, machine)?;
    words.extend(["ovsdb-server".into(), file.into()]);
    words.extend([
        "--remote=punix:/run/openvswitch/db.sock".into(),
        "--pidfile".into(),
    ]);
    words.extend(logging(&process));
    process.start(urgent(NICENESS, words), &programs.path())?;
    process.wait_ready(Duration::from_secs(60), || {
        Ok(succeeds(&mut within(
            layout,
            machine,
            programs,
            &["ovs-vsctl", "--timeout=5", "--no-wait", "init"],
        )?))
    })
}

/// What ovn-controller reads from the node's database (ovn-controller(8)).
fn configure(layout: &Layout, machine: Machine, datapath: &str, programs: &Programs) -> Result<()> {
    let mut ids = vec![
        ("system-id", machine.to_string()),
        ("hostname", machine.to_string()),
        (
            "ovn-remote",
            format!("tcp:{}:6642", layout.address(Machine::Control)),
        ),
        ("ovn-encap-type", "geneve".into()),
        ("ovn-encap-ip", layout.address(machine).to_string()),
        ("ovn-bridge", "br-int".into()),
        ("ovn-bridge-datapath-type", datapath.into()),
        ("ovn-monitor-all", "true".into()),
        ("ovn-openflow-probe-interval", "0".into()),
        ("ovn-remote-probe-interval", PROBE.to_string()),
    ];
    if Network::of(machine).contains(&Network::Ext) {
        ids.push(("ovn-bridge-mappings", format!("{}:br-ext", ext::NETWORK)));
    }
    let ids: Vec<String> = ids
        .iter()
        // Quoted: the database's own syntax has colons.
        .map(|(key, value)| format!("external_ids:{key}=\"{value}\""))
        .collect();
    let mut words = vec![
        "ovs-vsctl",
        "--timeout=20",
        "--no-wait",
        "set",
        "Open_vSwitch",
        ".",
    ];
    words.extend(ids.iter().map(String::as_str));
    run(&mut within(layout, machine, programs, &words)?)?;
    Ok(())
}

/// The addresses of `br-phy` go with vswitchd where its datapath is in userspace. This process gives them back
/// whenever the device appears, so that a crash does not cut the node off.
fn start_address(layout: &Layout, machine: Machine, programs: &Programs) -> Result<()> {
    let [address, address_v6] = layout.device_addresses(machine);
    let process = Process {
        layout,
        machine,
        part: ADDRESS,
    };
    let mut words = enter(layout, machine)?;
    let script = r#"
v4=$0 v6=$1
give() {
    ip link set br-phy up 2>/dev/null && ip addr replace "$v4" dev br-phy && ip addr replace "$v6" dev br-phy nodad &&
        ethtool -K br-phy tx off >/dev/null 2>&1
}
give
ip -o monitor link | while read -r line; do
    case $line in
    *Deleted*) ;;
    *br-phy:*)
        shown=$(ip -o addr show dev br-phy 2>/dev/null)
        case $shown in *" $v4 "*" $v6 "*) ;; *) give ;; esac
        ;;
    esac
done
"#;
    words.extend([
        "sh".into(),
        "-c".into(),
        script.into(),
        address.into(),
        address_v6.into(),
    ]);
    process.start(words, &programs.path())?;
    // After a crash the device may have the addresses, and not yet carry packets.
    let control = [
        layout.address(Machine::Control).to_string(),
        layout.address_v6(Machine::Control).to_string(),
    ];
    process.wait_ready(Duration::from_secs(30), || {
        for address in &control {
            let ping = ["ping", "-q", "-c", "1", "-W", "1", address];
            if !succeeds(&mut within(layout, machine, programs, &ping)?) {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

/// Starts ovn-controller.
pub(crate) fn start_controller(
    layout: &Layout,
    machine: Machine,
    programs: &Programs,
) -> Result<()> {
    let process = Process {
        layout,
        machine,
        part: CONTROLLER,
    };
    let mut words = enter(layout, machine)?;
    words.extend([
        "ovn-controller".into(),
        "unix:/run/openvswitch/db.sock".into(),
        "--pidfile".into(),
        // As packages start it: 25.03 has an assertion that a port's end can break (Port_Binding:up of a row that is gone).
        "--monitor".into(),
    ]);
    words.extend(logging(&process));
    process.start(urgent(CONTROLLER_NICENESS, words), &programs.path())?;
    Ok(())
}

/// Waits until OVN knows every chassis.
pub(crate) fn wait_chassis(layout: &Layout, programs: &Programs) -> Result<()> {
    for machine in layout.chassis() {
        let name = machine.to_string();
        let mut find = command(
            programs.ovn.bin().join("ovn-sbctl"),
            ["--no-leader-only", "--timeout=10"],
        );
        find.arg(format!("--db={}", remote(layout, SB)));
        find.args([
            "--bare",
            "--columns=name",
            "find",
            "Chassis",
            &format!("name={name}"),
        ]);
        Process {
            layout,
            machine,
            part: CONTROLLER,
        }
        .wait_ready(Duration::from_secs(90), || {
            Ok(run(&mut find).is_ok_and(|found| found.trim() == name))
        })?;
    }
    Ok(())
}

/// A command on the machine, with the lab's programs.
pub(crate) fn within(
    layout: &Layout,
    machine: Machine,
    programs: &Programs,
    words: &[&str],
) -> Result<Command> {
    let mut all = enter(layout, machine)?;
    all.push("env".into());
    all.push(option("PATH", programs.path()));
    all.extend(words.iter().map(OsString::from));
    let (program, args) = all.split_first().context("an empty command")?;
    Ok(command(program, args))
}
