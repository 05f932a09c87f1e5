//! A test's own corner of the cluster: a namespace, Vpcs, Subnets, Pods. Removed when dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use crate::cluster::{SLOW, SOON, apply, condition, eventually, get, in_pod, kubectl, on};

/// A namespace and the cluster-scoped objects that one test made.
pub struct Scene {
    /// The namespace; also the prefix of the names of Vpcs and Subnets.
    pub name: String,
    vpcs: Vec<String>,
    subnets: Vec<String>,
}

/// Who answered how often, and how many asked in vain.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answers {
    pub by: BTreeMap<String, u32>,
    pub failed: u32,
}

impl Answers {
    /// Names of those who answered.
    pub fn names(&self) -> Vec<&str> {
        self.by.keys().map(String::as_str).collect()
    }

    /// Number of answers.
    pub fn total(&self) -> u32 {
        self.by.values().sum()
    }
}

/// The names of all scenes of this run.
static TAKEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

impl Scene {
    /// An empty corner named `e2e-<name>`; what an earlier, killed run left of it goes first. No two tests may have one name, as
    /// they may run at the same time.
    pub fn new(name: &str) -> Self {
        let new = TAKEN
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned());
        assert!(new, "another test has a scene named {name}");
        let scene = Self {
            name: format!("e2e-{name}"),
            vpcs: Vec::new(),
            subnets: Vec::new(),
        };
        scene.remove_leftovers();
        kubectl(&["create", "namespace", &scene.name]).must();
        // Pods are refused before it is there.
        let account = ["-n", &scene.name, "get", "serviceaccount", "default"];
        eventually("the namespace's service account", SLOW, || {
            let printed = kubectl(&account);
            if printed.ok { Ok(()) } else { Err(printed.err) }
        });
        scene
    }

    fn remove_leftovers(&self) {
        kubectl(&[
            "delete",
            "namespace",
            &self.name,
            "--ignore-not-found",
            "--timeout=120s",
        ])
        .must();
        for kind in ["subnet", "vpc"] {
            let selector = format!("e2e={}", self.name);
            kubectl(&[
                "delete",
                kind,
                "-l",
                &selector,
                "--ignore-not-found",
                "--timeout=120s",
            ])
            .must();
        }
    }

    /// `name` as this scene's Vpcs and Subnets carry it.
    pub fn full(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// A Vpc with Subnets `(name, cidr)`, ready. A cidr is of either family, or one of each with a comma between.
    pub fn vpc(&mut self, vpc: &str, subnets: &[(&str, &str)]) -> String {
        self.vpc_with("{}", vpc, subnets)
    }

    /// [`Scene::vpc`] on an EipGateway that is not the default one.
    pub fn vpc_of_gateway(&mut self, vpc: &str, gateway: &str, subnets: &[(&str, &str)]) -> String {
        self.vpc_with(&format!("{{eipGateway: {gateway}}}"), vpc, subnets)
    }

    fn vpc_with(&mut self, spec: &str, vpc: &str, subnets: &[(&str, &str)]) -> String {
        let vpc = self.full(vpc);
        let labels = format!("labels: {{e2e: {}}}", self.name);
        let mut yaml = format!(
            "apiVersion: iaas.yusur.io/v1\nkind: Vpc\nmetadata: {{name: {vpc}, {labels}}}\nspec: {spec}\n"
        );
        for (subnet, cidrs) in subnets {
            let subnet = self.full(subnet);
            let ranges: String = cidrs
                .split(',')
                .map(|cidr| match cidr.contains(':') {
                    true => format!(", ipv6: {{cidr: {cidr:?}}}"),
                    false => format!(", cidr: {cidr}"),
                })
                .collect();
            yaml.push_str(&format!(
                "---\napiVersion: iaas.yusur.io/v1\nkind: Subnet\nmetadata: {{name: {subnet}, {labels}}}\nspec: {{vpc: {vpc}{ranges}}}\n"
            ));
            self.subnets.push(subnet);
        }
        apply(&yaml).must();
        self.vpcs.push(vpc.clone());
        for (subnet, _) in subnets {
            subnet_ready(&self.full(subnet));
        }
        vpc
    }

    /// One more Subnet of a Vpc, ready.
    pub fn subnet(&mut self, vpc: &str, subnet: &str, cidr: &str) {
        let subnet = self.full(subnet);
        apply(&format!(
            "apiVersion: iaas.yusur.io/v1
kind: Subnet
metadata: {{name: {subnet}, labels: {{e2e: {}}}}}
spec: {{vpc: {vpc}, cidr: {cidr}}}
",
            self.name
        ))
        .must();
        self.subnets.push(subnet.clone());
        subnet_ready(&subnet);
    }

    /// Deletes a Subnet, and waits until it is gone.
    pub fn without_subnet(&mut self, subnet: &str) {
        let subnet = self.full(subnet);
        kubectl(&["delete", "subnet", &subnet, "--timeout=60s"]).must();
        self.subnets.retain(|other| *other != subnet);
    }

    /// A Pod that answers HTTP on 8080 and UDP on 8081 with its name (`agnhost netexec`).
    pub fn server(&self, name: &str, subnet: &str, node: &str, app: &str) {
        apply(&self.server_yaml(name, subnet, node, app, "")).must();
    }

    /// The YAML of [`Scene::server`]; `extra` goes into the container, indented by six.
    pub fn server_yaml(
        &self,
        name: &str,
        subnet: &str,
        node: &str,
        app: &str,
        extra: &str,
    ) -> String {
        format!(
            "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {ns}
  labels: {{app: {app}}}
  annotations: {{iaas.yusur.io/subnet: {subnet}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers:
    - name: server
      image: registry.k8s.io/e2e-test-images/agnhost:2.59
      imagePullPolicy: IfNotPresent
      args: [netexec, --http-port=8080, --udp-port=8081]
      ports:
        - {{name: web, containerPort: 8080}}
        - {{name: dgram, containerPort: 8081, protocol: UDP}}
      readinessProbe:
        httpGet: {{path: /hostname, port: 8080}}
        periodSeconds: 1
        timeoutSeconds: 5
        failureThreshold: 1
{extra}",
            ns = self.name,
            subnet = self.subnet_name(subnet),
        )
    }

    /// A Pod on its node's own network that answers HTTP on `port` and UDP on `port + 1` with the node's name.
    pub fn server_on_node(&self, name: &str, node: &str, app: &str, port: u16) {
        apply(&format!(
            "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {ns}
  labels: {{app: {app}}}
spec:
  nodeName: {node}
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  containers:
    - name: server
      image: registry.k8s.io/e2e-test-images/agnhost:2.59
      imagePullPolicy: IfNotPresent
      args: [netexec, --http-port={port}, --udp-port={udp}]
      ports:
        - {{name: web, containerPort: {port}}}
        - {{name: dgram, containerPort: {udp}, protocol: UDP}}
      readinessProbe:
        httpGet: {{path: /hostname, port: {port}}}
        periodSeconds: 1
        timeoutSeconds: 5
        failureThreshold: 1
",
            ns = self.name,
            udp = port + 1,
        ))
        .must();
    }

    /// A Pod with tools that only asks.
    pub fn client(&self, name: &str, subnet: &str, node: &str) {
        apply(&format!(
            "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {ns}
  annotations: {{iaas.yusur.io/subnet: {subnet}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers:
    - name: tools
      image: ycloud.io/tools:v1
      imagePullPolicy: IfNotPresent
      command: [sleep, infinity]
",
            ns = self.name,
            subnet = self.subnet_name(subnet),
        ))
        .must();
    }

    fn subnet_name(&self, subnet: &str) -> String {
        let own = self.full(subnet);
        if self.subnets.contains(&own) {
            own
        } else {
            subnet.to_owned()
        }
    }

    /// Waits until every Pod of the namespace is ready.
    pub fn pods_ready(&self) {
        eventually("all Pods ready", SLOW, || {
            let pods = get(&["-n", &self.name, "pods"]);
            let waiting: Vec<String> = pods["items"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|pod| condition(pod, "Ready").0 != "True")
                .map(|pod| {
                    format!(
                        "{}: {}",
                        pod["metadata"]["name"], pod["status"]["containerStatuses"]
                    )
                })
                .collect();
            if waiting.is_empty() {
                Ok(())
            } else {
                Err(waiting.join("; "))
            }
        });
    }

    /// Waits until one Pod is ready.
    pub fn pod_ready(&self, name: &str) {
        eventually(&format!("Pod {name} ready"), SLOW, || {
            let pod = get(&["-n", &self.name, "pod", name]);
            if condition(&pod, "Ready").0 == "True" {
                Ok(())
            } else {
                Err(pod["status"]["containerStatuses"].to_string())
            }
        });
    }

    /// A YusurService of TCP `ports` (port, targetPort) in `vpc` over Pods labelled `app`.
    pub fn service(&self, name: &str, vpc: &str, ports: &[(u16, &str)], app: &str, extra: &str) {
        let ports: String = ports
            .iter()
            .map(|(port, target)| {
                format!(
                    "    - {{name: p{port}, port: {port}, protocol: TCP, targetPort: {target}}}\n"
                )
            })
            .collect();
        apply(&format!(
            "apiVersion: iaas.yusur.io/v1
kind: YusurService
metadata: {{name: {name}, namespace: {ns}}}
spec:
  vpc: {vpc}
  selector: {{app: {app}}}
  ports:
{ports}{extra}",
            ns = self.name
        ))
        .must();
    }

    /// A YusurService of scope cluster with port 80 for TCP and UDP, over Pods of [`Scene::server`] labelled `app`.
    pub fn cluster_service(&self, name: &str, app: &str) {
        apply(&format!(
            "apiVersion: iaas.yusur.io/v1
kind: YusurService
metadata: {{name: {name}, namespace: {ns}}}
spec:
  scope: cluster
  selector: {{app: {app}}}
  ports:
    - {{name: web, port: 80, protocol: TCP, targetPort: web}}
    - {{name: dgram, port: 80, protocol: UDP, targetPort: dgram}}
",
            ns = self.name
        ))
        .must();
    }

    /// Waits until the YusurService counts `healthy` endpoints and every hypervisor has them; returns its ClusterIP.
    pub fn programmed(&self, service: &str, healthy: i64) -> String {
        eventually(
            &format!("YusurService {service} programmed with {healthy} endpoints"),
            SLOW,
            || {
                let ysvc = get(&["-n", &self.name, "ysvc", service]);
                let (programmed, reason, message) = condition(&ysvc, "Programmed");
                let current = ysvc["status"]["conditions"][0]["observedGeneration"]
                    == ysvc["metadata"]["generation"];
                if current
                    && programmed == "True"
                    && ysvc["status"]["backends"]["healthy"] == healthy
                {
                    return Ok(ysvc["status"]["clusterIP"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned());
                }
                Err(format!(
                    "Programmed={programmed} {reason} {message}; status {}",
                    ysvc["status"]
                ))
            },
        )
    }

    /// The address of a Pod.
    pub fn pod_ip(&self, pod: &str) -> String {
        get(&["-n", &self.name, "pod", pod])["status"]["podIP"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Asks `http://address:port/hostname` from a Pod, `times` times, each with a connection of its own.
    pub fn ask(&self, client: &str, address: &str, port: u16, times: u32) -> Answers {
        let script = format!(
            "for i in $(seq {times}); do curl -s -m 5 http://{address}:{port}/hostname || printf FAILED-$?; echo; done | sort | uniq -c"
        );
        tally(&in_pod(&self.name, client, &script).must())
    }

    /// Sends the UDP datagram `hostname` to address:port from a Pod, `times` times, each from a socket of its own.
    pub fn ask_udp(&self, client: &str, address: &str, port: u16, times: u32) -> Answers {
        let script = asking_udp("hostname", address, port, times);
        tally(&in_pod(&self.name, client, &script).must())
    }

    /// The source address that a server sees when `client` asks it through address:port.
    pub fn source_seen(&self, client: &str, address: &str, port: u16) -> String {
        let answer = in_pod(
            &self.name,
            client,
            &format!("curl -s -m 3 http://{address}:{port}/clientip"),
        )
        .must();
        answer
            .rsplit_once(':')
            .map(|(ip, _)| ip.to_owned())
            .unwrap_or(answer)
    }

    /// The exit code of curl and the milliseconds it took: 7 is refused, 28 is timed out.
    pub fn curl_exit(&self, client: &str, address: &str, port: u16) -> (i32, u64) {
        let script = format!(
            "curl -s -o /dev/null -m 5 -w '%{{time_total}}' http://{address}:{port}/hostname; echo \" $?\""
        );
        let printed = in_pod(&self.name, client, &script).must();
        let (seconds, code) = printed
            .trim()
            .split_once(' ')
            .expect("a time and an exit code");
        let seconds: f64 = seconds.parse().expect("seconds");
        (
            code.parse().expect("an exit code"),
            (seconds * 1_000.0) as u64,
        )
    }
}

/// Waits until a Subnet is ready.
fn subnet_ready(subnet: &str) {
    eventually(&format!("Subnet {subnet} ready"), SOON, || {
        let (status, reason, message) = condition(&get(&["subnet", subnet]), "Ready");
        if status == "True" {
            Ok(())
        } else {
            Err(format!("Ready={status:?} {reason} {message}"))
        }
    });
}

/// [`Scene::ask`] from a machine of the lab: a node, or `external`.
pub fn ask_on(machine: &str, address: &str, port: u16, times: u32) -> Answers {
    tally(&on(machine, &asking(address, port, times)).must())
}

/// [`Scene::ask_udp`] from a machine of the lab.
pub fn ask_udp_on(machine: &str, address: &str, port: u16, times: u32) -> Answers {
    let script = asking_udp("hostname", address, port, times);
    tally(&on(machine, &script).must())
}

/// The source addresses that servers see when a machine of the lab asks them by TCP through address:port.
pub fn sources_seen_on(machine: &str, address: &str, port: u16, times: u32) -> Answers {
    let script = format!(
        "for i in $(seq {times}); do curl -s -m 3 http://{address}:{port}/clientip || printf FAILED-$?; echo; done | sed 's/:.*//' | sort | uniq -c"
    );
    tally(&on(machine, &script).must())
}

/// [`sources_seen_on`] by UDP.
pub fn sources_seen_udp_on(machine: &str, address: &str, port: u16, times: u32) -> Answers {
    let script = asking_udp("clientip", address, port, times).replacen(
        "| sort",
        "| sed 's/:.*//' | sort",
        1,
    );
    tally(&on(machine, &script).must())
}

/// A connection of its own for each question.
fn asking(address: &str, port: u16, times: u32) -> String {
    format!(
        "for i in $(seq {times}); do curl -s -m 3 http://{address}:{port}/hostname || printf FAILED-$?; echo; done | sort | uniq -c"
    )
}

/// A socket of its own for each datagram, side by side: `nc` stays two seconds after the answer, as one is too short on a busy machine.
fn asking_udp(question: &str, address: &str, port: u16, times: u32) -> String {
    format!(
        "{{ for i in $(seq {times}); do (a=$(echo {question} | timeout 4 nc -u -w 2 {address} {port} | head -1); echo ${{a:-FAILED}}) & done; wait; }} | sort | uniq -c"
    )
}

/// Reads the output of `sort | uniq -c`.
fn tally(printed: &str) -> Answers {
    let mut answers = Answers::default();
    for line in printed.lines() {
        let mut words = line.split_whitespace();
        let (Some(count), name) = (words.next(), words.next().unwrap_or("FAILED")) else {
            continue;
        };
        let count: u32 = count.parse().unwrap_or(0);
        if name.starts_with("FAILED") {
            eprintln!("{count} asked in vain: curl's exit code is {name}");
            answers.failed += count;
        } else {
            *answers.by.entry(name.to_owned()).or_default() += count;
        }
    }
    answers
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::env::var_os("KEEP_LAB").is_some() && std::thread::panicking() {
            return;
        }
        // Nothing here may panic: a failed clean-up is shown, and the next run of the same test clears it away.
        let shown = |printed: crate::cluster::Printed| {
            if !printed.ok {
                eprintln!("clean-up: {}", printed.err.trim_end());
            }
        };
        shown(kubectl(&[
            "delete",
            "namespace",
            &self.name,
            "--ignore-not-found",
            "--timeout=120s",
        ]));
        for (kind, names) in [("subnet", &self.subnets), ("vpc", &self.vpcs)] {
            for name in names {
                shown(kubectl(&[
                    "delete",
                    kind,
                    name,
                    "--ignore-not-found",
                    "--timeout=60s",
                ]));
            }
        }
    }
}
