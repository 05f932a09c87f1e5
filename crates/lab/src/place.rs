//! A place in a lab to send packets from: the network namespace of a machine or of a Pod.
//!
//! Sockets are made there and used from here, as a socket keeps the namespace that it was made in. So a test or a
//! measurement opens hundreds of connections without starting a process for each, sees what the kernel says of each, and
//! keeps them open as long as it likes.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};

use crate::command::{command, run_words};
use crate::lab::Lab;
use crate::layout::Machine;
use crate::net;
use crate::programs::SYSTEM_PATH;

/// Where packets are sent from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Place {
    name: String,
    netns: Arc<File>,
    /// At most one of each family.
    sources: Vec<IpAddr>,
    /// The port of its sockets; 0: the kernel chooses.
    port: u16,
}

impl Lab {
    /// A machine of the lab.
    ///
    /// # Errors
    /// When there is no such machine, or it is not up.
    pub fn place(&self, machine: Machine) -> Result<Place> {
        let netns = self.layout()?.netns(machine);
        Place::open(machine.to_string(), &net::path(&netns))
    }

    /// The Pod `name` of `namespace`, which runs on one of the lab's nodes.
    ///
    /// # Errors
    /// When there is no such Pod, or none of its processes runs.
    pub fn pod(&self, namespace: &str, name: &str) -> Result<Place> {
        let process = self.process_of_pod(namespace, name, |_| true)?;
        Place::open(format!("{namespace}/{name}"), &process.join("ns/net"))
    }

    /// A command in the first container of a Pod, in all of its namespaces, as `kubectl exec` runs
    /// it. Neither the API server's nor the kubelet's way to there is used.
    ///
    /// # Errors
    /// When there is no such Pod, or none of its containers runs.
    pub fn exec_in_pod<S: AsRef<OsStr>>(
        &self,
        namespace: &str,
        name: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Command> {
        let process = self.process_of_pod(namespace, name, runs_a_container)?;
        let pid = process.file_name().unwrap_or_default();
        let mut exec = command("nsenter", ["-t"]);
        exec.arg(pid).args(["-n", "-m", "-u", "-i", "-p", "--"]);
        exec.args(args);
        exec.env_clear().env("PATH", SYSTEM_PATH);
        Ok(exec)
    }

    /// The folder in `/proc` of the first process of a Pod that `wanted` chooses.
    fn process_of_pod(
        &self,
        namespace: &str,
        name: &str,
        wanted: impl Fn(&Path) -> bool,
    ) -> Result<PathBuf> {
        let pod = self.api()?.get(namespace, "pod", name)?;
        let pod = pod.with_context(|| format!("there is no Pod {namespace}/{name}"))?;
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        if uid.is_empty() {
            bail!("Pod {namespace}/{name} has no UID");
        }
        // The kubelet names a Pod's cgroup by its UID, with either separator.
        let uids = [uid.to_owned(), uid.replace('-', "_")];
        let in_pod = |folder: &Path| {
            std::fs::read_to_string(folder.join("cgroup"))
                .is_ok_and(|cgroup| uids.iter().any(|uid| cgroup.contains(uid)))
        };
        let mut processes: Vec<(u32, PathBuf)> = std::fs::read_dir("/proc")?
            .flatten()
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
            .collect();
        // Containers start one after the other.
        processes.sort();
        let mut folders = processes.into_iter().map(|(_, folder)| folder);
        folders
            .find(|folder| in_pod(folder) && wanted(folder))
            .with_context(|| format!("no process of Pod {namespace}/{name} runs"))
    }
}

/// Whether a process of a Pod, by its folder in `/proc`, is one of a container. What holds the Pod's
/// namespaces has no shell. What makes a container runs under several names, and has the node's root
/// directory until shortly before it becomes the container's program.
fn runs_a_container(process: &Path) -> bool {
    let named = std::fs::read_to_string(process.join("comm"))
        .is_ok_and(|name| name.trim() != "pause" && !name.starts_with("runc"));
    named && !has_our_root(process)
}

/// Whether a process sees the same root directory as this one. One that cannot be looked at does not
/// count as another.
fn has_our_root(process: &Path) -> bool {
    let (theirs, ours) = (
        std::fs::metadata(process.join("root")),
        std::fs::metadata("/"),
    );
    match (theirs, ours) {
        (Ok(theirs), Ok(ours)) => (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()),
        _ => true,
    }
}

impl Place {
    pub(crate) fn open(name: String, netns: &Path) -> Result<Self> {
        let file = File::open(netns).with_context(|| {
            format!("failed to open {}, the network of {name}", netns.display())
        })?;
        Ok(Self {
            name,
            netns: Arc::new(file),
            sources: Vec::new(),
            port: 0,
        })
    }

    /// The machine's name, or the Pod's with its namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same place, sending from this one of its addresses, to addresses of the same family. Otherwise the kernel
    /// chooses.
    #[must_use]
    pub fn from(&self, source: impl Into<IpAddr>) -> Self {
        let source = source.into();
        let mut place = self.clone();
        place
            .sources
            .retain(|other| other.is_ipv4() != source.is_ipv4());
        place.sources.push(source);
        place
    }

    /// The same place, sending from this port: one connection or socket at a time.
    #[must_use]
    pub fn from_port(&self, port: u16) -> Self {
        Self {
            port,
            ..self.clone()
        }
    }

    /// A TCP connection, for which it waits no longer than `limit`; reads and writes time out after `limit` too.
    ///
    /// # Errors
    /// What the kernel says, such as `ConnectionRefused` or `TimedOut`.
    pub fn connect(&self, to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
        let socket = self.socket(to.ip(), Type::STREAM, Protocol::TCP)?;
        socket.connect_timeout(&to.into(), limit)?;
        socket.set_read_timeout(Some(limit))?;
        socket.set_write_timeout(Some(limit))?;
        socket.set_tcp_nodelay(true)?;
        Ok(socket.into())
    }

    /// A UDP socket that sends to `to` and hears only from there; reads time out after `limit`.
    ///
    /// # Errors
    /// What the kernel says, such as `NetworkUnreachable`.
    pub fn datagrams(&self, to: SocketAddr, limit: Duration) -> io::Result<UdpSocket> {
        let socket = self.socket(to.ip(), Type::DGRAM, Protocol::UDP)?;
        socket.connect(&to.into())?;
        socket.set_read_timeout(Some(limit))?;
        Ok(socket.into())
    }

    /// A TCP socket that listens at `at`, an address of this place or the unspecified one.
    ///
    /// # Errors
    /// What the kernel says, such as `AddrInUse`.
    pub fn listen(&self, at: SocketAddr) -> io::Result<TcpListener> {
        self.inside(|| TcpListener::bind(at))
    }

    /// A raw socket of an IP protocol, such as 1 for ICMP, for peers of the family of `peer`: sees all packets of that
    /// protocol that arrive, with IPv4's header, without IPv6's.
    ///
    /// # Errors
    /// Without the right to: needs root.
    pub fn raw(&self, peer: IpAddr, protocol: Protocol) -> io::Result<Socket> {
        self.socket(peer, Type::RAW, protocol)
    }

    /// Cuts the cable of `eth0`, or joins it again: while it is cut, what arrives there is dropped without a word.
    ///
    /// # Errors
    /// Where there is no such device.
    pub fn set_cable(&self, joined: bool) -> Result<()> {
        // Adding before deleting: so that there is one to delete.
        let rules = if joined {
            "add table netdev cut; delete table netdev cut"
        } else {
            "add table netdev cut; add chain netdev cut in { type filter hook ingress device eth0 priority 0; policy drop; }"
        };
        // A process is in the network namespace of the thread that starts it.
        self.inside(|| run_words(&["nft", rules]).map_err(io::Error::other))?;
        Ok(())
    }

    fn socket(&self, peer: IpAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        let domain = Domain::for_address(SocketAddr::new(peer, 0));
        let socket = self.inside(|| Socket::new(domain, kind, Some(protocol)))?;
        let same = |source: &&IpAddr| source.is_ipv4() == peer.is_ipv4();
        let source = self.sources.iter().find(same).copied();
        if source.is_some() || self.port != 0 {
            let any = || match peer {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            socket.bind(&SocketAddr::new(source.unwrap_or_else(any), self.port).into())?;
        }
        Ok(socket)
    }

    /// Does `work` in a thread that is in this network namespace, and waits for it.
    pub(crate) fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        thread::scope(|scope| {
            let made = scope.spawn(|| {
                setns(&*self.netns, CloneFlags::CLONE_NEWNET)?;
                work()
            });
            made.join()
                .map_err(|_| io::Error::other("the thread panicked"))?
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Stdio};

    use super::*;

    /// A shell with these words first, that waits until it is dropped.
    struct Shell(Child);

    impl Shell {
        fn new(script: &str) -> Self {
            let mut unshare = Command::new("unshare");
            unshare.args(["--mount", "sh", "-ec", script]);
            let mut child = unshare.stdout(Stdio::piped()).spawn().expect("unshare");
            let said = child.stdout.take().expect("piped");
            let line = BufReader::new(said).lines().next();
            assert_eq!(line.expect("a line").expect("text"), "here");
            Self(child)
        }

        fn folder(&self) -> PathBuf {
            format!("/proc/{}", self.0.id()).into()
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            self.0.kill().expect("a child");
            self.0.wait().expect("a child");
        }
    }

    #[test]
    fn what_has_the_nodes_root_directory_is_not_yet_a_container() {
        let wait = "echo here; exec sleep 60";
        assert!(!runs_a_container(&Shell::new(wait).folder()));
        let elsewhere = Shell::new(&format!(
            "mount -t tmpfs none /mnt
cd /mnt
mkdir usr
mount --bind /usr usr
ln -s usr/bin usr/lib usr/lib64 .
exec chroot . /bin/sh -c '{wait}'"
        ));
        assert!(runs_a_container(&elsewhere.folder()));
    }
}
