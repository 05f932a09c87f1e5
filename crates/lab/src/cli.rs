//! The command line.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ycloud_lab::backend::Backend;
use ycloud_lab::{
    BenchOptions, ConformanceOptions, Lab, Machine, OvnVersion, PartStatus, Profile, UpOptions, ext,
};

/// Real Kubernetes on real OVN on one machine, each node a network namespace
#[derive(Debug, Parser)]
#[command(
    name = "cargo lab",
    bin_name = "cargo lab",
    after_help = "Examples:
  cargo lab up                                   three nodes, OVN 25.03
  cargo lab --name old up --nodes 2 --ovn 23.03  another lab beside it
  cargo lab kubectl get pods -A
  cargo lab exec node-1 -- ovs-vsctl show
  cargo lab logs kubelet --on node-2 -f
  cargo lab backend start vm-1                   boots the virtual machine of VNic vm-1
  eval \"$(cargo lab env)\"                        kubectl and ovn-nbctl of the lab in this shell
  cargo lab down"
)]
pub struct Cli {
    /// Which lab: 1 to 20 of a-z, 0-9 and -
    #[arg(long, global = true, default_value = "lab", env = "YCLOUD_LAB")]
    name: String,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make the lab, or repair it: start what is not running
    Up(Up),
    /// Build ycloud from this checkout and install it: kubectl apply -k deploy/
    Install(Built),
    /// The main path, from YAML to packets: up, install, a VPC, backends, a client and a YusurService
    Demo(Up),
    /// Measure a lab with ycloud installed: Pods at once, many Services; or fail-over, or probes
    Bench(Bench),
    /// Run Kubernetes' own end-to-end tests against a lab with ycloud installed
    E2e(E2e),
    /// Take the lab away without a trace
    Down,
    /// List every process; fails if one is dead
    Status,
    /// Kill a process, as `status` names it, and start it again
    Restart(Part),
    /// Kill a process, as `status` names it; `start` or `up` starts it again
    Stop(Part),
    /// Start whatever does not run on a machine
    Start {
        /// The machine
        machine: Machine,
    },
    /// Cut a machine off from all networks at once, as if it had died; its processes go on
    Isolate {
        /// The machine
        machine: Machine,
    },
    /// Join a machine to its networks again
    Rejoin {
        /// The machine
        machine: Machine,
    },
    /// What is behind a VNic of kind VM, BM or None: a virtual machine, a bare-metal server, a bare address
    Backend {
        /// What to do
        #[arg(value_enum)]
        what: What,
        /// The VNic's name
        vnic: String,
        /// The VNic's namespace
        #[arg(long, short, default_value = "default")]
        namespace: String,
    },
    /// Build ycloud and load its image into the nodes
    Load(Built),
    /// Fill the cache without making a lab
    Build {
        /// Version of OVN: 25.03 or 23.03
        #[arg(long, default_value_t)]
        ovn: OvnVersion,
    },
    /// Print the folder with Open vSwitch's and OVN's programs, for tests that need no lab
    Tools {
        /// Version of OVN: 25.03 or 23.03
        #[arg(long, default_value_t)]
        ovn: OvnVersion,
    },
    /// Run kubectl as the cluster's administrator
    #[command(disable_help_flag = true)]
    Kubectl(Words),
    /// Run ovn-nbctl on the Northbound database
    #[command(disable_help_flag = true)]
    OvnNbctl(Words),
    /// Run ovn-sbctl on the Southbound database
    #[command(disable_help_flag = true)]
    OvnSbctl(Words),
    /// Run a command on a machine: control, external, upstream, dpu-1, node-1, node-2, …
    Exec {
        /// The machine
        machine: Machine,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        words: Vec<OsString>,
    },
    /// Show the log of a part, as `status` names it
    Logs(Logs),
    /// Print what makes this shell use the lab: eval "$(cargo lab env)"
    Env,
}

/// What happens to what is behind a VNic.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Make it and start it: HTTP on 8080, HTTPS on 8443 and UDP on 8081, which answer with the VNic's name; gRPC's health service
    /// on 50051
    Start,
    /// Make only the device that the VNic names
    Plug,
    /// Kill its server; a virtual machine loses its power
    Stop,
    /// Cut its cable: packets are lost
    Cut,
    /// Join its cable again
    Join,
    /// Take it away
    Remove,
}

#[derive(Debug, Args)]
struct Part {
    /// Where it runs
    machine: Machine,
    /// Its name, such as ovn-controller or kube-apiserver
    part: String,
}

#[derive(Debug, Args)]
struct Up {
    /// Number of nodes, 1 to 99 [default: 3, or as many as the lab has]
    #[arg(long)]
    nodes: Option<u8>,
    /// Version of OVN: 25.03 or 23.03 [default: 25.03, or the lab's]
    #[arg(long)]
    ovn: Option<OvnVersion>,
    /// Leave ycloud's own image out
    #[arg(long)]
    no_ycloud: bool,
}

impl From<Up> for UpOptions {
    fn from(up: Up) -> Self {
        Self {
            nodes: up.nodes,
            ovn: up.ovn,
            ycloud: !up.no_ycloud,
        }
    }
}

#[derive(Debug, Args)]
struct Built {
    /// As it is shipped: optimised, which takes minutes to build. For measurements; `up` and `load` without this put a debug build in
    /// its place
    #[arg(long)]
    release: bool,
}

impl From<Built> for Profile {
    fn from(built: Built) -> Self {
        match built.release {
            true => Self::Release,
            false => Self::Dev,
        }
    }
}

#[derive(Debug, Args)]
struct Bench {
    /// How many Services
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    services: u32,
    /// How many endpoints each
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    endpoints: u32,
    /// How many Pods start at once
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=50))]
    pods: u32,
    /// Instead, let what carries elastic addresses die and return, so many times each, and measure the outages
    #[arg(long, value_name = "ROUNDS", num_args = 0..=1, default_missing_value = "3", value_parser = clap::value_parser!(u32).range(1..=100))]
    fail_over: Option<u32>,
    /// Instead, let one node ask so many NetworkProbes every half minute, and measure what that costs
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "10000", conflicts_with = "fail_over", value_parser = clap::value_parser!(u32).range(1..=50_000))]
    network_probes: Option<u32>,
    /// Instead, let backends of every kind fail in every way and return, so many times each, and measure by when each kind of
    /// probe has found out; prints Markdown
    #[arg(long, value_name = "ROUNDS", num_args = 0..=1, default_missing_value = "1", conflicts_with_all = ["fail_over", "network_probes"], value_parser = clap::value_parser!(u32).range(1..=100))]
    probes: Option<u32>,
    /// With --probes: only failures in whose name this is, such as "chassis dead"
    #[arg(long, value_name = "NAME", requires = "probes")]
    failure: Option<String>,
}

#[derive(Debug, Args)]
struct E2e {
    /// Tests whose name matches this regular expression [default: sig-network's Conformance]
    focus: Option<String>,
    /// Leave out those that match [default: Serial, Slow, Disruptive, and those that need a provider, or a feature that
    /// the focus does not name]
    #[arg(long)]
    skip: Option<String>,
    /// How many at the same time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    procs: u32,
    /// End the run after so many minutes
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=600))]
    minutes: u32,
}

impl From<E2e> for ConformanceOptions {
    fn from(e2e: E2e) -> Self {
        let focus = e2e.focus.unwrap_or_else(|| Self::default().focus);
        Self {
            skip: e2e.skip.unwrap_or_else(|| Self::skip_for(&focus)),
            focus,
            procs: e2e.procs,
            minutes: e2e.minutes,
        }
    }
}

#[derive(Debug, Args)]
struct Words {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

#[derive(Debug, Args)]
struct Logs {
    /// A part such as kubelet, kube-apiserver, ovs-vswitchd
    part: String,
    /// Only that machine's
    #[arg(long)]
    on: Option<Machine>,
    /// How many lines
    #[arg(short = 'n', long, default_value_t = 40)]
    lines: u32,
    /// Go on as the log grows
    #[arg(short, long)]
    follow: bool,
}

/// Does what the command line says.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let lab = Lab::named(&cli.name)?;
    match cli.action {
        Action::Up(up) => lab.up(&up.into())?,
        Action::Install(built) => lab.install(built.into())?,
        Action::Demo(up) => lab.demo(&up.into())?,
        Action::Bench(Bench {
            fail_over: Some(rounds),
            ..
        }) => lab.bench_fail_over(rounds)?,
        Action::Bench(Bench {
            network_probes: Some(probes),
            ..
        }) => lab.bench_network_probes(probes)?,
        Action::Bench(Bench {
            probes: Some(rounds),
            failure,
            ..
        }) => lab.bench_probes(rounds, failure.as_deref().unwrap_or_default())?,
        Action::Bench(bench) => lab.bench(&BenchOptions {
            services: bench.services,
            endpoints: bench.endpoints,
            pods: bench.pods,
        })?,
        Action::E2e(e2e) => lab.conformance(&e2e.into())?,
        Action::Down => lab.down()?,
        Action::Status => return status(&lab),
        Action::Restart(Part { machine, part }) => lab.restart(machine, &part)?,
        Action::Stop(Part { machine, part }) => lab.stop(machine, &part)?,
        Action::Start { machine } => lab.start(machine)?,
        Action::Isolate { machine } => lab.isolate(machine)?,
        Action::Rejoin { machine } => lab.rejoin(machine)?,
        Action::Backend {
            what,
            vnic,
            namespace,
        } => backend(&lab.backend(&namespace, &vnic)?, what)?,
        Action::Load(built) => lab.load(built.into())?,
        Action::Build { ovn } => Lab::build(ovn)?,
        Action::Tools { ovn } => println!("{}", Lab::tools(ovn)?.display()),
        Action::Kubectl(args) => return become_it(lab.kubectl(args.words)?),
        Action::OvnNbctl(args) => return become_it(lab.ovn_nbctl(args.words)?),
        Action::OvnSbctl(args) => return become_it(lab.ovn_sbctl(args.words)?),
        Action::Exec { machine, words } => return become_it(lab.exec(machine, words)?),
        Action::Logs(logs) => return become_it(tail(&lab, &logs)?),
        Action::Env => {
            for (name, value) in lab.environment()? {
                println!("export {name}={}", quoted(&value.to_string_lossy()));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn backend(backend: &Backend, what: What) -> Result<()> {
    match what {
        What::Start => backend.start(),
        What::Plug => backend.plug(),
        What::Stop => backend.stop(),
        What::Cut => backend.set_cable(false),
        What::Join => backend.set_cable(true),
        What::Remove => backend.remove(),
    }
}

/// Turns this process into the command, so that its streams, signals and exit code are the command's own.
fn become_it(mut command: Command) -> Result<ExitCode> {
    let error = command.exec();
    Err(error).with_context(|| {
        format!(
            "failed to start {}",
            command.get_program().to_string_lossy()
        )
    })
}

fn status(lab: &Lab) -> Result<ExitCode> {
    let parts = lab.status()?;
    print!("{}", table(&parts));
    println!(
        "external   a machine outside the cluster: {} and {}",
        lab.address(Machine::External)?,
        ext::EXTERNAL
    );
    println!(
        "dpu-1      the chassis of bare-metal servers: {}",
        lab.address(Machine::Dpu)?
    );
    println!(
        "upstream   the router of the network {}: {}",
        ext::NETWORK,
        ext::ROUTER
    );
    let dead = parts.iter().filter(|part| part.pid.is_none()).count();
    if dead > 0 {
        eprintln!(
            "{dead} of {} processes are dead: `cargo lab up` starts them again",
            parts.len()
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn table(parts: &[PartStatus]) -> String {
    let mut text = format!("{:<10} {:<24} {:>8}  STATE\n", "MACHINE", "PART", "PID");
    for part in parts {
        let pid = part
            .pid
            .map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let state = if part.pid.is_some() {
            "up".to_owned()
        } else {
            format!("DEAD  {}", part.log.display())
        };
        text += &format!(
            "{:<10} {:<24} {pid:>8}  {state}\n",
            part.machine.to_string(),
            part.part
        );
    }
    text
}

/// A `tail` of the part's logs; with several, each is headed by its name.
fn tail(lab: &Lab, logs: &Logs) -> Result<Command> {
    let parts = lab.status()?;
    let wanted: Vec<&PartStatus> = parts
        .iter()
        .filter(|part| {
            part.part == logs.part && logs.on.is_none_or(|machine| machine == part.machine)
        })
        .collect();
    if wanted.is_empty() {
        let mut known: Vec<&str> = parts.iter().map(|part| part.part).collect();
        known.sort_unstable();
        known.dedup();
        bail!(
            "there is no such part here; the parts are {}",
            known.join(", ")
        );
    }
    let mut tail = Command::new("tail");
    tail.arg("-n").arg(logs.lines.to_string());
    if logs.follow {
        tail.arg("-F");
    }
    tail.args(wanted.iter().map(|part| &part.log));
    Ok(tail)
}

/// The text as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_kubectl_are_left_to_kubectl() {
        let cli = Cli::try_parse_from([
            "lab", "--name", "x", "kubectl", "get", "pods", "-A", "--help",
        ])
        .unwrap();
        let Action::Kubectl(args) = cli.action else {
            panic!("{:?}", cli.action)
        };
        assert_eq!(args.words, ["get", "pods", "-A", "--help"]);
        assert_eq!(cli.name, "x");
    }

    #[test]
    fn a_command_for_a_machine_follows_two_dashes() {
        let cli = Cli::try_parse_from(["lab", "exec", "node-2", "--", "ip", "-br", "a"]).unwrap();
        let Action::Exec { machine, words } = cli.action else {
            panic!("{:?}", cli.action)
        };
        assert_eq!((machine, words.len()), (Machine::Node(2), 3));
    }

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quoted("a b'c"), r"'a b'\''c'");
    }

    #[test]
    fn a_dead_part_names_its_log() {
        let part = PartStatus {
            machine: Machine::Control,
            part: "etcd",
            pid: None,
            log: "/l/etcd.log".into(),
        };
        assert!(table(&[part]).contains("DEAD  /l/etcd.log"));
    }
}
