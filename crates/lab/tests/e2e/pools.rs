//! Address pools: exhausted, taken, outside, given back.

use crate::cluster::{
    SLOW, SOON, apply, condition, delete, eventually, exists, get, patch, start_deleting,
};
use crate::scene::Scene;

/// A Pod in `subnet`, with more annotations.
fn annotated(scene: &Scene, name: &str, subnet: &str, more: &str) {
    apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {ns}, annotations: {{iaas.yusur.io/subnet: {subnet}{more}}}}}
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 0
  containers:
    - {{name: tools, image: 'ycloud.io/tools:v1', imagePullPolicy: IfNotPresent, command: [sleep, infinity]}}
",
        ns = scene.name
    ))
    .must();
}

/// Waits for a Warning Event about a Pod that contains all of `words`.
fn warned(scene: &Scene, pod: &str, words: &[&str]) {
    eventually(
        &format!("an Event on Pod {pod} with {words:?}"),
        SLOW,
        || {
            let events = get(&["-n", &scene.name, "events"]);
            let notes: Vec<String> = events["items"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|e| e["type"] == "Warning" && e["involvedObject"]["name"] == pod)
                .filter_map(|e| e["message"].as_str().map(str::to_owned))
                .collect();
            if notes
                .iter()
                .any(|note| words.iter().all(|word| note.contains(word)))
            {
                Ok(())
            } else {
                Err(format!("{notes:?}"))
            }
        },
    );
}

#[test]
fn an_exhausted_subnet_says_so_and_a_released_address_comes_back() {
    let mut scene = Scene::new("pool-full");
    // Five usable addresses, the gateway not counted, and no other Vpc has them on the same node.
    scene.vpc("v", &[("a", "10.0.77.0/29")]);
    for i in 0..5 {
        scene.client(&format!("c{i}"), "a", "node-1");
    }
    scene.pods_ready();
    let subnet = scene.full("a");
    eventually("the Subnet counts", SOON, || {
        let status = get(&["subnet", &subnet])["status"]["addresses"].clone();
        if status["used"] == 5 && status["free"] == 0 && status["total"] == 5 {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    scene.client("late", "a", "node-1");
    warned(&scene, "late", &[&subnet, "10.0.77.0/29", "5"]);
    let released = scene.pod_ip("c2");
    delete(&scene.name, "pod", "c2");
    scene.pods_ready();
    assert_eq!(scene.pod_ip("late"), released);
}

#[test]
fn a_fixed_address_is_honoured_refused_when_taken_and_when_outside() {
    let mut scene = Scene::new("pool-fixed");
    scene.vpc("v", &[("a", "10.0.1.0/24")]);
    let subnet = scene.full("a");
    annotated(&scene, "first", &subnet, ", iaas.yusur.io/ip: 10.0.1.77");
    scene.pods_ready();
    assert_eq!(scene.pod_ip("first"), "10.0.1.77");
    annotated(&scene, "second", &subnet, ", iaas.yusur.io/ip: 10.0.1.77");
    warned(&scene, "second", &["10.0.1.77", "first"]);
    annotated(&scene, "third", &subnet, ", iaas.yusur.io/ip: 10.9.9.9");
    warned(&scene, "third", &["10.9.9.9", "10.0.1.0/24"]);
    annotated(&scene, "fourth", "no-such-subnet", "");
    warned(&scene, "fourth", &["no-such-subnet"]);
    for pod in ["first", "third", "fourth"] {
        delete(&scene.name, "pod", pod);
    }
    scene.pods_ready();
    assert_eq!(
        scene.pod_ip("second"),
        "10.0.1.77",
        "the address goes to who waited for it"
    );
}

#[test]
fn a_used_vpc_and_subnet_wait_and_say_for_whom() {
    let mut scene = Scene::new("pool-in-use");
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    scene.client("c", "a", "node-1");
    scene.pods_ready();
    let subnet = scene.full("a");
    start_deleting("", "subnet", &subnet);
    start_deleting("", "vpc", &vpc);
    eventually("the Subnet says who uses it", SOON, || {
        let (status, _, message) = condition(&get(&["subnet", &subnet]), "InUse");
        if status == "True" && message.contains(&scene.name) {
            Ok(())
        } else {
            Err(format!("{status} {message}"))
        }
    });
    eventually("the Vpc says who uses it", SOON, || {
        let (status, _, message) = condition(&get(&["vpc", &vpc]), "InUse");
        if status == "True" && message.contains(&subnet) {
            Ok(())
        } else {
            Err(format!("{status} {message}"))
        }
    });
    assert!(
        crate::cluster::in_pod(&scene.name, "c", "ip -4 address show eth0")
            .must()
            .contains("10.0.1."),
        "the Pod keeps its network"
    );
    delete(&scene.name, "pod", "c");
    for (kind, name) in [("subnet", &subnet), ("vpc", &vpc)] {
        eventually(&format!("{kind} {name} gone"), SOON, || {
            match exists("", kind, name) {
                true => Err("it is there".to_owned()),
                false => Ok(()),
            }
        });
    }
}

#[test]
fn twenty_pods_at_once_get_twenty_addresses() {
    let mut scene = Scene::new("pool-burst");
    scene.vpc("v", &[("a", "10.0.1.0/24")]);
    for i in 0..20 {
        scene.client(&format!("c{i}"), "a", "node-2");
    }
    scene.pods_ready();
    let addresses: std::collections::BTreeSet<String> =
        (0..20).map(|i| scene.pod_ip(&format!("c{i}"))).collect();
    assert_eq!(addresses.len(), 20, "{addresses:?}");
}

#[test]
fn a_subnet_shrinks_and_grows_but_never_below_its_users() {
    let mut scene = Scene::new("pool-shrink");
    scene.vpc("v", &[("a", "10.0.1.0/24")]);
    let subnet = scene.full("a");
    annotated(&scene, "high", &subnet, ", iaas.yusur.io/ip: 10.0.1.200");
    annotated(&scene, "c", &subnet, ", iaas.yusur.io/ip: 10.0.1.110");
    scene.pods_ready();
    let resize = |cidr: &str| {
        // The default gateway is the range's first address; running Pods have the one they started with.
        let fields = serde_json::json!({"spec": {"cidr": cidr, "gateway": "10.0.1.1"}});
        patch("", "subnet", &subnet, &fields).must();
    };
    let pings = || {
        let printed = crate::cluster::in_pod(&scene.name, "c", "ping -c 2 -W 1 10.0.1.200");
        if printed.ok { Ok(()) } else { Err(printed.out) }
    };
    resize("10.0.1.0/25");
    eventually("the Subnet says who is in the way", SOON, || {
        let (status, _, message) = condition(&get(&["subnet", &subnet]), "Ready");
        if status == "False" && message.contains("10.0.1.200") {
            Ok(())
        } else {
            Err(format!("{status} {message}"))
        }
    });
    eventually("its Pods still reach each other", SOON, pings);
    resize("10.0.0.0/23");
    eventually("the Subnet is ready at its new size", SOON, || {
        let object = get(&["subnet", &subnet]);
        let (status, _, message) = condition(&object, "Ready");
        let total = object["status"]["addresses"]["total"]
            .as_i64()
            .unwrap_or_default();
        if status == "True" && total > 254 {
            Ok(())
        } else {
            Err(format!("{status} {message} {total}"))
        }
    });
}
