//! Kubernetes' own Services, and who answers on them to whom.

use std::fmt;
use std::time::Duration;

use ycloud_lab::ask::{Heard, Protocol, knock};

use crate::asking::{Answered, SILENCE, pod, target};
use crate::cluster::{SLOW, SOON, apply, eventually, get};
use crate::scene::{Scene, ask_on, ask_udp_on, at, links_at_rest};

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
    pub fn tcp(self, scene: &Scene, address: &str, port: u16, times: u32) -> Answered {
        match self {
            Client::Pod(pod) => scene.ask(pod, address, port, times),
            Client::Machine(machine) => ask_on(machine, address, port, times),
        }
    }

    /// Asks by UDP, each time from a socket of its own.
    pub fn udp(self, scene: &Scene, address: &str, port: u16, times: u32) -> Answered {
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
    links_at_rest();
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
            answers if answers.names() == names && answers.failed.is_empty() => Ok(()),
            answers => Err(format!("{answers:?}")),
        },
    );
    let tcp = client.tcp(scene, address, port, enough);
    let udp = client.udp(scene, address, port, enough * 2 / 3);
    assert_eq!(
        (tcp.names(), tcp.failed.len()),
        (names.to_vec(), 0),
        "{client}"
    );
    assert_eq!(
        (udp.names(), udp.failed.len()),
        (names.to_vec(), 0),
        "{client}"
    );
}

/// Waits until the client is refused: at once, not by silence.
#[track_caller]
pub fn refused(scene: &Scene, client: Client<'_>, address: &str, port: u16) {
    let place = match client {
        Client::Pod(name) => pod(scene, name),
        Client::Machine(machine) => at(machine),
    };
    let to = target(address, port);
    eventually(&format!("{client} is refused"), SOON, || {
        match knock(&place, Protocol::Tcp, to, Duration::from_secs(2)) {
            Heard::Refusal => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let met = knock(&place, Protocol::Udp, to, SILENCE);
    assert_ne!(met, Heard::Answer, "{client} is answered by UDP");
}
