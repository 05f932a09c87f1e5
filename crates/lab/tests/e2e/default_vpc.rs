//! The default Vpc: nodes reach its Pods, its Pods reach the API server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Stdio};

use crate::city::default_vpc;
use crate::cluster::{SOON, eventually, get, in_pod, kubectl, on, the_lab};
use crate::scene::Scene;

#[test]
fn scenario_2_nodes_and_pods_of_the_default_vpc_reach_each_other() {
    let scene = default_vpc();
    for node in ["node-1", "node-2", "node-3"] {
        for server in ["s0", "s1", "s2"] {
            let printed = on(
                node,
                &format!("curl -s -m 3 http://{}:8080/hostname", scene.pod_ip(server)),
            );
            assert_eq!(printed.out.trim(), server, "{node}: {}", printed.err);
        }
    }
    for server in ["s0", "s1", "s2"] {
        assert_eq!(
            scene.ask("c1", &scene.pod_ip(server), 8080, 2).names(),
            [server]
        );
        assert_eq!(
            scene.source_seen("c1", &scene.pod_ip(server), 8080),
            scene.pod_ip("c1"),
            "Pod to Pod keeps the source"
        );
    }
}

#[test]
fn a_pod_of_the_default_vpc_reaches_the_api_server_by_its_cluster_ip() {
    let scene = default_vpc();
    let vip = get(&["-n", "default", "service", "kubernetes"])["spec"]["clusterIP"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    for client in ["c0", "c1", "c2"] {
        let script =
            format!("curl -sk -m 5 -o /dev/null -w '%{{http_code}}' https://{vip}:443/version");
        eventually(&format!("{client} reaches the API server"), SOON, || {
            let printed = in_pod(&scene.name, client, &script);
            // Answered at all: anonymous requests are refused or served as the cluster's RBAC has it.
            if ["200", "401", "403"].contains(&printed.out.trim()) {
                Ok(())
            } else {
                Err(format!("{printed:?}"))
            }
        });
    }
}

#[test]
fn kubectl_logs_exec_and_port_forward_work_in_every_vpc() {
    let mut scene = Scene::new("kubectl");
    scene.vpc("v", &[("a", "10.0.1.0/24")]);
    scene.server("own", "a", "node-1", "web");
    scene.server("default", "ovn-default", "node-1", "web");
    scene.pods_ready();
    for pod in ["own", "default"] {
        let exec = ["-n", &scene.name, "exec", pod, "--", "hostname"];
        assert_eq!(kubectl(&exec).must().trim(), pod);
        let log = kubectl(&["-n", &scene.name, "logs", pod]).must();
        assert!(log.contains("Started"), "the log of {pod}: {log}");
        let forward = Forward::start(&scene.name, pod);
        let mut asked = TcpStream::connect(("127.0.0.1", forward.port)).expect("a connection");
        asked
            .write_all(b"GET /hostname HTTP/1.0\r\n\r\n")
            .expect("sent");
        let mut answer = String::new();
        asked.read_to_string(&mut answer).expect("an answer");
        assert!(answer.ends_with(pod), "by a forwarded port: {answer}");
    }
}

/// `kubectl port-forward` from a free port of this machine to a Pod's 8080, while it is in scope.
struct Forward {
    kubectl: Child,
    port: u16,
    /// It writes a line for each connection, and dies if nobody could read that.
    _said: BufReader<ChildStdout>,
}

impl Forward {
    fn start(namespace: &str, pod: &str) -> Self {
        let words = ["-n", namespace, "port-forward", pod, ":8080"];
        let mut kubectl = the_lab().kubectl(words).expect("a lab that is up");
        let mut kubectl = kubectl.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut said = BufReader::new(kubectl.stdout.take().expect("a pipe"));
        let mut line = String::new();
        said.read_line(&mut line).expect("a line");
        let port = line.split(" -> ").next().and_then(|s| s.rsplit(':').next());
        let port = port.and_then(|port| port.parse().ok());
        Self {
            kubectl,
            port: port.unwrap_or_else(|| panic!("kubectl says {line:?}")),
            _said: said,
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // It ends when it is told to, and only then.
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}
