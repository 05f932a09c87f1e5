//! Whom a Vpc permits: who is not permitted is refused in words, reaches nobody and is reached by
//! nobody; and a permission that is taken back takes its effects along, while the others'
//! connections live on.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use ycloud_lab::ask::{Heard, Protocol, knock};
use ycloud_lab::place::Place;

use crate::asking::{SILENCE, Stream, assert_pod_answers, pod, target};
use crate::backends::{CHECK, assert_served};
use crate::cluster::{SOON, apply, condition, delete, eventually, get, patch};
use crate::scene::Scene;

/// Sets the namespaces that a Vpc permits by name.
fn permit(vpc: &str, names: &[&str]) {
    let fields = json!({"spec": {"allowedNamespaces": {"names": names}}});
    patch("", "vpc", vpc, &fields).must();
}

/// Two namespaces, and a Vpc of the first one with a Subnet `a` that permits both by name.
fn host_and_guest(name: &str) -> (Scene, Scene, String) {
    let (mut host, guest) = (Scene::new(name), Scene::new(&format!("{name}-guest")));
    let names = format!("[{}, {}]", host.name, guest.name);
    let spec = format!("{{allowedNamespaces: {{names: {names}}}}}");
    let vpc = host.vpc_with(&spec, "v", &[("a", "10.0.1.0/24")]);
    (host, guest, vpc)
}

/// A Pod of `guest` in a Subnet of `host`, as [`Scene::server`] makes it; it serves HTTP on `port`.
fn guest_server(guest: &Scene, host: &Scene, name: &str, node: &str, port: u16) {
    let yaml = guest.server_yaml(name, &host.full("a"), node, "guest", "");
    apply(&yaml.replace("8080", &port.to_string())).must();
}

/// Waits until a YusurService is refused with all of `words`.
#[track_caller]
fn refused(scene: &Scene, service: &str, words: &[&str]) {
    eventually(&format!("{service} is refused"), SOON, || {
        let ysvc = get(&["-n", &scene.name, "ysvc", service]);
        let (accepted, reason, message) = condition(&ysvc, "Accepted");
        let all = words.iter().all(|word| message.contains(word));
        match accepted == "False" && all {
            true => Ok(()),
            false => Err(format!("Accepted={accepted} {reason}: {message}")),
        }
    });
}

/// Waits until a Pod that has no address is told why, in such words.
#[track_caller]
fn told(scene: &Scene, pod: &str, words: &str) {
    eventually(
        &format!("Pod {pod} is told why it has no address"),
        SOON,
        || {
            let events = get(&["-n", &scene.name, "events"]);
            let all = events["items"].as_array().into_iter().flatten();
            let of_pod = |event: &&Value| {
                let about = &event["involvedObject"];
                about["kind"] == "Pod" && about["name"] == pod
            };
            let text: String = all.filter(of_pod).map(Value::to_string).collect();
            match text.contains(words) && scene.pod_ip(pod).is_empty() {
                true => Ok(()),
                false => Err(text),
            }
        },
    );
}

#[test]
fn timed_a_namespace_that_is_not_permitted_any_more_is_cut_off_and_others_feel_nothing() {
    let (host, guest, vpc) = host_and_guest("permit");
    host.server("own", "a", "node-1", "own");
    host.client("c", "a", "node-2");
    guest_server(&guest, &host, "theirs", "node-2", 8080);
    guest.client("guest-c", &host.full("a"), "node-3");
    host.service("svc", &vpc, &[(80, "8080")], "own", CHECK);
    guest.service("theirs", &vpc, &[(80, "8080")], "guest", CHECK);
    host.pods_ready();
    guest.pods_ready();
    let own = target(&host.programmed("svc", 1), 80);
    let theirs = target(&guest.programmed("theirs", 1), 80);
    let places = [pod(&host, "c"), pod(&guest, "guest-c")];
    let [client, guest_client] = &places;
    for place in &places {
        assert_pod_answers(place, own, "own");
        assert_pod_answers(place, theirs, "theirs");
    }
    // A third one was never permitted: no address, no Service.
    let stranger = Scene::new("permit-stranger");
    stranger.client("lost", &host.full("a"), "node-1");
    stranger.service("svc", &vpc, &[(80, "8080")], "own", "");
    refused(
        &stranger,
        "svc",
        &[&vpc, &stranger.name, "allowedNamespaces"],
    );
    told(&stranger, "lost", "does not permit");

    let stream = Stream::start(client, Protocol::Tcp, own, Duration::from_millis(50));
    permit(&vpc, &[&host.name]);
    refused(&guest, "theirs", &[&vpc, &guest.name, "allowedNamespaces"]);
    let server = target(&guest.pod_ip("theirs"), 8080);
    let own_server = target(&host.pod_ip("own"), 8080);
    let cut_off = [
        (client, theirs),
        (client, server),
        (guest_client, own),
        (guest_client, own_server),
        (guest_client, theirs),
    ];
    let nobody_answers = |(place, to): (&Place, SocketAddr)| {
        let what = format!("{} does not reach {to}", place.name());
        eventually(&what, SOON, || {
            match knock(place, Protocol::Tcp, to, SILENCE) {
                Heard::Answer => Err("it is answered".to_owned()),
                Heard::Refusal | Heard::Unreachable | Heard::Silence => Ok(()),
            }
        });
    };
    let stays_so = |(place, to): (&Place, SocketAddr)| {
        let met = knock(place, Protocol::Tcp, to, SILENCE);
        assert_ne!(met, Heard::Answer, "{} reaches {to} again", place.name());
    };
    thread::scope(|scope| {
        for one in cut_off {
            scope.spawn(move || nobody_answers(one));
        }
    });
    thread::scope(|scope| {
        for one in cut_off {
            scope.spawn(move || stays_so(one));
        }
    });
    assert_pod_answers(client, own, "own");

    permit(&vpc, &[&host.name, &guest.name]);
    guest.programmed("theirs", 1);
    for place in &places {
        eventually("who is permitted again is served again", SOON, || {
            let heard = [own, theirs].map(|to| knock(place, Protocol::Tcp, to, SILENCE));
            match heard == [Heard::Answer; 2] {
                true => Ok(()),
                false => Err(format!("{}: {heard:?}", place.name())),
            }
        });
        assert_pod_answers(place, own, "own");
        assert_pod_answers(place, theirs, "theirs");
    }
    assert_served(&stream.finish());
}

#[test]
fn a_backend_of_another_namespace_and_port_serves_while_the_vpc_names_the_services_namespace() {
    let (host, guest, vpc) = host_and_guest("lend");
    host.server("own", "a", "node-1", "own");
    host.client("c", "a", "node-3");
    // Nothing answers there at the Service's own target port.
    guest_server(&guest, &host, "lent", "node-2", 9080);
    let lent = format!(
        "{{kind: Pod, namespace: {}, selector: {{matchLabels: {{app: guest}}}}, ports: [{{name: p80, targetPort: 9080}}]}}",
        guest.name
    );
    let more = format!("  backends: [{lent}]\n{CHECK}");
    host.service("svc", &vpc, &[(80, "8080")], "own", &more);
    host.pods_ready();
    guest.pods_ready();
    let to = target(&host.programmed("svc", 2), 80);
    let client = pod(&host, "c");
    let both = || {
        let answered = host.ask("c", &to.ip().to_string(), 80, 30);
        assert_eq!(answered.failed, vec![], "{answered:?}");
        assert_eq!(answered.names(), ["lent", "own"], "{answered:?}");
    };
    both();
    let lent_at = target(&guest.pod_ip("lent"), 8080);
    assert_eq!(
        knock(&client, Protocol::Tcp, lent_at, SILENCE),
        Heard::Refusal
    );

    // To be permitted by a label is not to be named: what others lend needs that.
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": host.name}});
    let fields =
        json!({"spec": {"allowedNamespaces": {"names": [guest.name], "selector": selector}}});
    patch("", "vpc", &vpc, &fields).must();
    let words = ["spec.backends[0].namespace", &guest.name, &host.name];
    refused(&host, "svc", &words);
    eventually("the lent backend is asked no more", SOON, || {
        let answered = host.ask("c", &to.ip().to_string(), 80, 20);
        match (answered.names(), answered.failed.len()) == (vec!["own"], 0) {
            true => Ok(()),
            false => Err(format!("{answered:?}")),
        }
    });
    permit(&vpc, &[&host.name, &guest.name]);
    host.programmed("svc", 2);
    both();
    // What is lent is its owner's, who takes it back by deleting it.
    delete(&guest.name, "pod", "lent");
    host.programmed("svc", 1);
    let answered = host.ask("c", &to.ip().to_string(), 80, 10);
    assert_eq!((answered.names(), answered.failed.len()), (vec!["own"], 0));
}

#[test]
fn a_vpc_is_closed_until_it_or_a_subnet_of_it_names_the_namespace() {
    let mut host = Scene::new("closed");
    let vpc = host.vpc_with("{allowedNamespaces: {}}", "v", &[("a", "10.0.1.0/24")]);
    let open = json!({"spec": {"allowedNamespaces": null}});
    patch("", "vpc", &vpc, &open).must();
    eventually("the Vpc says that it is closed", SOON, || {
        let (ready, _, message) = condition(&get(&["vpc", &vpc]), "Ready");
        match ready == "True" && message.contains("permits nobody") {
            true => Ok(()),
            false => Err(message),
        }
    });
    host.server("own", "a", "node-1", "own");
    host.client("c", "a", "node-2");
    host.service("svc", &vpc, &[(80, "8080")], "own", CHECK);
    // The nodes' own network is nobody else's, whoever may use the default Vpc.
    host.client("node", "subnet0", "node-3");
    for pod in ["own", "c"] {
        told(&host, pod, "does not permit");
    }
    told(&host, "node", "joins the nodes");
    refused(&host, "svc", &[&vpc, &host.name, "allowedNamespaces"]);
    delete(&host.name, "pod", "node");

    let names = |namespaces: &[&str]| {
        let fields = json!({"spec": {"namespaces": namespaces}});
        patch("", "subnet", &host.full("a"), &fields).must();
    };
    names(&[&host.name]);
    host.pods_ready();
    let to = target(&host.programmed("svc", 1), 80);
    let client = pod(&host, "c");
    assert_pod_answers(&client, to, "own");

    names(&[]);
    refused(&host, "svc", &[&vpc, &host.name, "allowedNamespaces"]);
    let server = target(&host.pod_ip("own"), 8080);
    for to in [to, server] {
        eventually("nobody is served any more", SOON, || {
            match knock(&client, Protocol::Tcp, to, SILENCE) {
                Heard::Answer => Err(format!("{to} answers")),
                _ => Ok(()),
            }
        });
    }
    permit(&vpc, &[&host.name]);
    host.programmed("svc", 1);
    eventually(
        "who is permitted again is served again",
        SOON,
        || match knock(&client, Protocol::Tcp, to, SILENCE) {
            Heard::Answer => Ok(()),
            heard => Err(format!("{heard:?}")),
        },
    );
}
