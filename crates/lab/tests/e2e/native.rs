//! Kubernetes' own Services, and who answers on them to whom.

use std::fmt;

use crate::cluster::{SLOW, SOON, apply, eventually, get};
use crate::scene::{Answers, Scene, ask_on, ask_udp_on};

/// Port 80 of TCP and UDP alike, to whatever the Pods call `web` and `dgram`.
pub const PORTS: &str = "  ports:
    - {name: web, port: 80, protocol: TCP, targetPort: web}
    - {name: dgram, port: 80, protocol: UDP, targetPort: dgram}
";

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub enum Client<'a> {
    /// A Pod of the scene.
    Pod(&'a str),
    /// A node's own network, or `external`.
    Machine(&'a str),
}

impl fmt::Display for Client<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Client::Pod(name) | Client::Machine(name)) = self;
        f.write_str(name)
    }
}

impl Client<'_> {
    /// Asks by TCP, each time with a connection of its own.
    pub fn tcp(self, scene: &Scene, address: &str, port: u16, times: u32) -> Answers {
        match self {
            Client::Pod(pod) => scene.ask(pod, address, port, times),
            Client::Machine(machine) => ask_on(machine, address, port, times),
        }
    }

    /// Asks by UDP, each time from a socket of its own.
    pub fn udp(self, scene: &Scene, address: &str, port: u16, times: u32) -> Answers {
        match self {
            Client::Pod(pod) => scene.ask_udp(pod, address, port, times),
            Client::Machine(machine) => ask_udp_on(machine, address, port, times),
        }
    }
}

/// A Service of the scene's namespace; `spec` is YAML, indented by two. Returns its cluster address.
pub fn service(scene: &Scene, name: &str, spec: &str) -> String {
    apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {}}}\nspec:\n{spec}",
        scene.name
    ))
    .must();
    let service = get(&["-n", &scene.name, "service", name]);
    let address = service["spec"]["clusterIP"].as_str().unwrap_or_default();
    address.to_owned()
}

/// The address by which a node is known.
pub fn node_address(node: &str) -> String {
    let addresses = get(&["node", node])["status"]["addresses"].clone();
    let internal = addresses
        .as_array()
        .into_iter()
        .flatten()
        .find(|address| address["type"] == "InternalIP");
    let address = internal.and_then(|address| address["address"].as_str());
    address.expect("an address").to_owned()
}

/// Waits until the client is answered by exactly these, then asks again: by TCP and UDP, nobody else may answer and no
/// question may be lost.
#[track_caller]
pub fn answered_by(scene: &Scene, client: Client<'_>, address: &str, port: u16, names: &[&str]) {
    let enough = 12 * u32::try_from(names.len()).expect("a few");
    eventually(
        &format!("{client} is answered by {names:?}"),
        SLOW,
        || match client.tcp(scene, address, port, enough) {
            answers if answers.names() == names && answers.failed == 0 => Ok(()),
            answers => Err(format!("{answers:?}")),
        },
    );
    let tcp = client.tcp(scene, address, port, enough);
    let udp = client.udp(scene, address, port, enough * 2 / 3);
    assert_eq!((tcp.names(), tcp.failed), (names.to_vec(), 0), "{client}");
    assert_eq!((udp.names(), udp.failed), (names.to_vec(), 0), "{client}");
}

/// Waits until the client is refused: at once, not by silence.
#[track_caller]
pub fn refused(scene: &Scene, client: Client<'_>, address: &str, port: u16) {
    let script =
        format!("curl -s -o /dev/null -m 2 http://{address}:{port}/hostname; echo code-$?");
    eventually(&format!("{client} is refused"), SOON, || {
        let printed = match client {
            Client::Pod(pod) => crate::cluster::in_pod(&scene.name, pod, &script),
            Client::Machine(machine) => crate::cluster::on(machine, &script),
        };
        match printed.out.trim() {
            "code-7" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    let udp = client.udp(scene, address, port, 2);
    assert_eq!(udp.total(), 0, "{client} is answered by UDP: {udp:?}");
}
