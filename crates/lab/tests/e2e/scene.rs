//! A test's own corner of the cluster: a namespace, Vpcs, Subnets, Pods. Removed when dropped.

use std::fs::File;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde_json::{Value, json};
use ycloud_lab::ask::{Heard, Protocol, knock};
use ycloud_lab::links::at_rest;
use ycloud_lab::place::Place;

use crate::asking::{Answered, PATIENCE, ask_often, pod, target};
use crate::cluster::{
    NODES, SLOW, SOON, api, apply, condition, delete, eventually, exists, get, on, patch, the_lab,
};
use crate::rows::others_gone;

/// A namespace and the cluster-scoped objects that one test made.
pub struct Scene {
    /// The namespace; also the prefix of the names of Vpcs and Subnets.
    pub name: String,
    vpcs: Vec<String>,
    subnets: Vec<String>,
    /// Held as long as the process has it; None where others have it too.
    lock: Option<File>,
}

impl Scene {
    /// An empty corner named `e2e-<name>`; what an earlier run left of it goes first. No two tests
    /// may have one name, as they may run at the same time: the second one fails.
    pub fn new(name: &str) -> Self {
        // Beside those of the lab itself.
        let path = format!("/run/ycloud-lab/locks/e2e-{}-{name}", the_lab().name());
        let lock = File::create(path).expect("a lab that is up");
        let free = lock.try_lock().is_ok();
        assert!(free, "another test has a scene named {name}");
        let scene = Self {
            name: format!("e2e-{name}"),
            vpcs: Vec::new(),
            subnets: Vec::new(),
            lock: Some(lock),
        };
        scene.make();
        scene
    }

    /// A corner that several tests share, named `e2e-shared-<name>`: the first one that asks for it has it made by `fill`,
    /// with all Pods ready; the last test of a run removes it. Who shares it adds Services, of names of its own, and
    /// changes nothing else.
    pub fn shared(name: &str, fill: impl FnOnce(&mut Self)) -> Self {
        let name = format!("e2e-shared-{name}");
        let path = format!("/run/ycloud-lab/locks/{}-{name}", the_lab().name());
        let lock = File::create(path).expect("a lab that is up");
        lock.lock().expect("the lock");
        let mut scene = Self {
            name,
            vpcs: Vec::new(),
            subnets: Vec::new(),
            lock: None,
        };
        // Made by this very build of the tests, to its end.
        let made = json!(build());
        let namespace = api().get("", "namespace", &scene.name);
        let namespace = namespace
            .expect("the API server answers")
            .unwrap_or_default();
        let stays = namespace["metadata"]["deletionTimestamp"].is_null();
        if stays && namespace["metadata"]["annotations"][MADE] == made {
            let labels = format!("e2e={}", scene.name);
            let list = api().list("", "subnet", &labels);
            let names = list.expect("the API server answers").into_iter();
            let name = |mut object: Value| match object["metadata"]["name"].take() {
                Value::String(name) => name,
                other => panic!("a Subnet is named {other}"),
            };
            scene.subnets = names.map(name).collect();
            return scene;
        }
        scene.make();
        fill(&mut scene);
        scene.pods_ready();
        let fields = json!({"metadata": {"annotations": {MADE: made}}});
        patch("", "namespace", &scene.name, &fields).must();
        scene
    }

    fn make(&self) {
        self.remove_leftovers();
        apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {}}}\n",
            self.name
        ))
        .must();
        // Pods are refused before it is there.
        eventually("the namespace's service account", SLOW, || {
            match exists(&self.name, "serviceaccount", "default") {
                true => Ok(()),
                false => Err("not yet".to_owned()),
            }
        });
    }

    fn remove_leftovers(&self) {
        let selector = format!("e2e={}", self.name);
        let mut left = vec![("namespace", self.name.clone())];
        for kind in ["subnet", "vpc"] {
            let list = api().list("", kind, &selector);
            for object in list.expect("the API server answers") {
                let name = object["metadata"]["name"].as_str().expect("a name");
                left.push((kind, name.to_owned()));
            }
        }
        // Some may be on their way already.
        for (kind, name) in &left {
            let deleted = api().delete("", kind, name, None);
            deleted.expect("the API server answers");
        }
        for (kind, name) in &left {
            let gone = api().wait_gone("", kind, name, "", SLOW);
            gone.unwrap_or_else(|error| panic!("{error:#}"));
        }
    }

    /// `name` as this scene's Vpcs and Subnets carry it.
    pub fn full(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// A Vpc with Subnets `(name, cidr)`, which [`Scene::pods_ready`] waits for. A cidr is of either family, or one of each with a
    /// comma between.
    pub fn vpc(&mut self, vpc: &str, subnets: &[(&str, &str)]) -> String {
        self.vpc_with("{}", vpc, subnets)
    }

    /// [`Scene::vpc`] on an EipGateway that is not the default one.
    pub fn vpc_of_gateway(&mut self, vpc: &str, gateway: &str, subnets: &[(&str, &str)]) -> String {
        self.vpc_with(&format!("{{eipGateway: {gateway}}}"), vpc, subnets)
    }

    /// [`Scene::vpc`] with a spec, as YAML in one line. It permits the scene's namespace if it says nothing else.
    pub fn vpc_with(&mut self, spec: &str, vpc: &str, subnets: &[(&str, &str)]) -> String {
        let vpc = self.full(vpc);
        let own = format!("allowedNamespaces: {{names: [{}]}}", self.name);
        let inner = spec.trim_start_matches('{').trim_end_matches('}');
        let spec = match (spec.contains("allowedNamespaces"), inner.is_empty()) {
            (true, _) => spec.to_owned(),
            (false, true) => format!("{{{own}}}"),
            (false, false) => format!("{{{inner}, {own}}}"),
        };
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
        vpc
    }

    /// Waits until every Subnet of the scene is ready.
    pub fn subnets_ready(&self) {
        self.subnets.iter().for_each(|subnet| subnet_ready(subnet));
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
        delete("", "subnet", &subnet);
        self.subnets.retain(|other| *other != subnet);
    }

    /// A Pod that answers HTTP on 8080 and UDP on 8081 with its name (`agnhost netexec`). It is ready as soon as it listens; whether
    /// it still does, its node asks every ten seconds: each question is a connection through Open vSwitch, and a hundred Pods
    /// that are asked each second are all that two processors can do.
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
  labels: {{app: {app}, name: {name}}}
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
      startupProbe:
        httpGet: {{path: /hostname, port: 8080}}
        periodSeconds: 1
        timeoutSeconds: 5
        failureThreshold: 600
      readinessProbe:
        httpGet: {{path: /hostname, port: 8080}}
        periodSeconds: 10
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
  labels: {{app: {app}, name: {name}}}
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
      startupProbe:
        httpGet: {{path: /hostname, port: {port}}}
        periodSeconds: 1
        timeoutSeconds: 5
        failureThreshold: 600
      readinessProbe:
        httpGet: {{path: /hostname, port: {port}}}
        periodSeconds: 10
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

    /// Waits until every Pod of the namespace is ready, and for who measures time or compares rows, until what earlier tests left is
    /// cleared away.
    ///
    /// Likewise the scene's Subnets, and until the network is at rest, as [`links_at_rest`] says.
    pub fn pods_ready(&self) {
        let test = thread::current().name().unwrap_or_default().to_owned();
        let strict = ["::timed_", "::alone_"];
        if strict.iter().any(|word| test.contains(word)) {
            others_gone(&self.name);
        }
        self.subnets_ready();
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
        links_at_rest();
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
        let address = eventually(
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
        );
        links_at_rest();
        address
    }

    /// The address of a Pod.
    pub fn pod_ip(&self, pod: &str) -> String {
        get(&["-n", &self.name, "pod", pod])["status"]["podIP"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Asks address:port from a Pod by TCP, `times` times, each with a connection of its own.
    #[track_caller]
    pub fn ask(&self, client: &str, address: &str, port: u16, times: u32) -> Answered {
        let place = pod(self, client);
        ask_often(&place, Protocol::Tcp, target(address, port), times)
    }

    /// [`Scene::ask`] by UDP, each time from a socket of its own.
    #[track_caller]
    pub fn ask_udp(&self, client: &str, address: &str, port: u16, times: u32) -> Answered {
        let place = pod(self, client);
        ask_often(&place, Protocol::Udp, target(address, port), times)
    }

    /// The source address that a server sees when `client` asks it through address:port.
    #[track_caller]
    pub fn source_seen(&self, client: &str, address: &str, port: u16) -> String {
        let answered = self.ask(client, address, port, 1);
        let seen = answered.clients.first().map(IpAddr::to_string);
        seen.unwrap_or_else(|| panic!("{client} had no answer: {answered:?}"))
    }

    /// What a connection from a Pod meets, and after how long.
    #[track_caller]
    pub fn knock(&self, client: &str, address: &str, port: u16) -> (Heard, Duration) {
        let (place, start) = (pod(self, client), Instant::now());
        let heard = knock(&place, Protocol::Tcp, target(address, port), PATIENCE);
        (heard, start.elapsed())
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

/// The machines whose Open vSwitch forwards.
#[track_caller]
pub fn chassis() -> Vec<Place> {
    NODES.into_iter().chain(["dpu-1"]).map(at).collect()
}

/// Waits until no link or route of any chassis has changed for a while. Open vSwitch in user space drops packets to other nodes
/// while they change (ARCHITECTURE, Known limits), as they do with Pods and probers that come and go, also with those of the
/// test before.
#[track_caller]
pub fn links_at_rest() {
    let rest = at_rest(&chassis(), Duration::from_millis(300), SLOW).expect("a watch of links");
    assert!(rest, "links of chassis change all the time");
}

/// Waits until no chassis has a prober in a Vpc that is gone: its link goes ten seconds after its last probe. For who cannot excuse what
/// a change of links costs.
#[track_caller]
pub fn probers_gone() {
    eventually("probers have left the Vpcs of earlier tests", SLOW, || {
        let vpcs = api().list("", "vpc", "").expect("the API server answers");
        let is_there = |vpc: &str| vpcs.iter().any(|one| one["metadata"]["name"] == vpc);
        for place in chassis() {
            let listed = on(
                place.name(),
                "ovs-vsctl --columns=external_ids list Interface",
            )
            .must();
            for rest in listed.split("ycloud-prober=").skip(1) {
                let vpc = rest.split([',', '}']).next().unwrap_or_default();
                let vpc = vpc.trim_matches('"');
                if !is_there(vpc) {
                    return Err(format!("{} asks in Vpc {vpc}", place.name()));
                }
            }
        }
        Ok(())
    });
}

/// A machine of the lab, which sends from the address that its routes choose.
#[track_caller]
pub fn at(machine: &str) -> Place {
    let place = the_lab().place(machine.parse().expect("a machine's name"));
    place.expect("a machine that is up")
}

/// [`Scene::ask`] from a machine of the lab: a node, or `external`.
#[track_caller]
pub fn ask_on(from: &str, address: &str, port: u16, times: u32) -> Answered {
    ask_often(&at(from), Protocol::Tcp, target(address, port), times)
}

/// [`Scene::ask_udp`] from a machine of the lab.
#[track_caller]
pub fn ask_udp_on(from: &str, address: &str, port: u16, times: u32) -> Answered {
    ask_often(&at(from), Protocol::Udp, target(address, port), times)
}

/// The annotation of a shared scene's namespace that says which build of the tests has made it.
const MADE: &str = "e2e/made-by";

/// What tells this build of the tests from others.
fn build() -> String {
    let program = std::env::current_exe().and_then(std::fs::metadata);
    let modified = program.and_then(|program| program.modified());
    let since = modified.map(|time| time.duration_since(UNIX_EPOCH).unwrap_or_default());
    format!("{:?}", since.expect("the program that runs"))
}

/// All of a scene is told to go. Nobody waits for it: other tests have names of their own, and
/// `scripts/test` sees to it, once all have run, that nothing of any scene is left.
impl Drop for Scene {
    fn drop(&mut self) {
        let kept = std::env::var_os("KEEP_LAB").is_some() && std::thread::panicking();
        if self.lock.is_none() || kept {
            return;
        }
        // Nothing here may panic: a failed clean-up is shown, and the next run of the same test clears it away.
        let namespace = ("namespace", &self.name);
        let subnets = self.subnets.iter().map(|name| ("subnet", name));
        let vpcs = self.vpcs.iter().map(|name| ("vpc", name));
        for (kind, name) in [namespace].into_iter().chain(subnets).chain(vpcs) {
            if let Err(error) = api().delete("", kind, name, None) {
                eprintln!("clean-up: {kind} {name}: {error:#}");
            }
        }
        // Kubernetes looks into a namespace five seconds after it was told to delete it.
        for kind in ["ysvc", "service", "deployment", "pod", "vnic", "eip"] {
            if let Err(error) = api().delete_all(&self.name, kind) {
                eprintln!("clean-up: each {kind} of {}: {error:#}", self.name);
            }
        }
    }
}
