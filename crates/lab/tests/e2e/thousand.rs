//! A thousand Services over fifty Vpcs with equal ranges: all are programmed, and nothing is left of them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::asking::gateways;
use crate::cluster::{api, eventually, get, nbctl, start_deleting};
use crate::rows::{Row, changed, rows, rows_at_rest};
use crate::scene::Scene;

const VPCS: usize = 50;

/// Services of each Vpc: by turns a YusurService, and a Service with ten endpoints written by hand.
const SERVICES: usize = 20;

/// Of those, the ones with an EIP.
const EIPS: usize = 2;

/// How long until all are programmed, and until nothing is left. The API server's share is the larger one.
const LONG: Duration = Duration::from_secs(300);

/// A YusurService of which nobody is a backend.
fn yusur_service(scene: &Scene, name: &str, vpc: &str, outside: bool) -> Value {
    let kind = if outside { "LoadBalancer" } else { "ClusterIP" };
    json!({
        "apiVersion": "iaas.yusur.io/v1", "kind": "YusurService",
        "metadata": {"name": name, "namespace": scene.name},
        "spec": {"vpc": vpc, "type": kind, "ports": [{"port": 80}], "selector": {"app": "nobody"}},
    })
}

/// A Service in a Vpc and its ten endpoints.
fn service(scene: &Scene, name: &str, vpc: &str, outside: bool) -> [Value; 2] {
    let annotations = json!({"iaas.yusur.io/vpc": vpc});
    let mut spec = json!({"ports": [{"name": "web", "port": 80, "targetPort": 8080}]});
    if outside {
        spec["type"] = "LoadBalancer".into();
        spec["loadBalancerClass"] = "iaas.yusur.io/eip".into();
        spec["allocateLoadBalancerNodePorts"] = false.into();
    }
    let endpoint = |host: usize| json!({"addresses": [format!("10.0.1.{host}")], "conditions": {"ready": true}});
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "spec": spec,
            "metadata": {"name": name, "namespace": scene.name, "annotations": annotations,
                "labels": {"service.kubernetes.io/service-proxy-name": "ycloud"}},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": scene.name, "annotations": annotations,
                "labels": {"kubernetes.io/service-name": name}},
            "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}],
            "endpoints": (10..20).map(endpoint).collect::<Vec<_>>(),
        }),
    ]
}

/// The rows without the columns that say which node carries a gateway. That is another matter: two
/// processors that have too much to do miss BFD's packets, and a gateway stays where it came to.
fn without_carriers(mut rows: BTreeMap<String, Row>) -> BTreeMap<String, Row> {
    for row in rows.values_mut() {
        match row.table.as_str() {
            "HA_Chassis" => {
                row.columns.remove("priority");
            }
            "Logical_Router" => {
                if let Some(options) = row.columns.get_mut("options") {
                    without_key(options, "chassis");
                }
            }
            _ => {}
        }
    }
    rows
}

/// Takes an entry out of a map of OVSDB's JSON: `["map", [[key, value], …]]`, RFC 7047 §5.1.
fn without_key(map: &mut Value, key: &str) {
    let entries = map.get_mut(1).and_then(Value::as_array_mut);
    if let Some(entries) = entries {
        entries.retain(|entry| entry[0] != key);
    }
}

#[test]
fn alone_a_thousand_services_over_fifty_vpcs_come_and_go_row_for_row() {
    gateways();
    let before = without_carriers(rows_at_rest());
    let mut scene = Scene::new("thousand");
    let mut objects = Vec::new();
    for v in 0..VPCS {
        let subnet = format!("s{v}");
        let vpc = scene.vpc(&format!("v{v}"), &[(&subnet, "10.0.1.0/24")]);
        for i in 0..SERVICES {
            let (name, outside) = (format!("svc-{v}-{i}"), i < EIPS);
            match i % 2 {
                0 => objects.push(yusur_service(&scene, &name, &vpc, outside)),
                _ => objects.extend(service(&scene, &name, &vpc, outside)),
            }
        }
    }
    scene.subnets_ready();
    std::thread::scope(|scope| {
        for part in objects.chunks(objects.len().div_ceil(8)) {
            scope.spawn(move || {
                part.iter()
                    .for_each(|object| api().create(object).expect("made"))
            });
        }
    });

    eventually("all Services are programmed", LONG, || {
        let services = get(&["-n", &scene.name, "services"]);
        let all = services["items"].as_array().cloned().unwrap_or_default();
        let programmed =
            |s: &&Value| s["metadata"]["annotations"]["iaas.yusur.io/programmed"].is_string();
        let with_eip = |s: &&Value| s["status"]["loadBalancer"]["ingress"][0]["ip"].is_string();
        let done = (
            all.iter().filter(programmed).count(),
            all.iter().filter(with_eip).count(),
        );
        match done == (VPCS * SERVICES, VPCS * EIPS) {
            true => Ok(()),
            false => Err(format!("{done:?} of {} are", all.len())),
        }
    });
    let balancers = nbctl(&["--bare", "--columns=name", "list", "Load_Balancer"]);
    let prefix = format!("{}/", scene.name);
    let ours = balancers.lines().filter(|name| name.starts_with(&prefix));
    assert_eq!(ours.count(), VPCS * (SERVICES + EIPS));

    // In this order nothing waits for its users.
    let namespace = scene.name.clone();
    start_deleting("", "namespace", &namespace);
    let gone = api().wait_gone("", "namespace", &namespace, "", LONG);
    gone.unwrap_or_else(|error| panic!("{error:#}"));
    drop(scene);
    eventually("the Northbound database is as it was", LONG, || {
        let mut differ = changed(&before, &without_carriers(rows()));
        // A prober's port stays in its Vpc for ten seconds after its last probe, and a Service of an earlier test may have been that.
        differ.retain(|one| !one.contains("probe:e2e-shared-"));
        match differ.first() {
            None => Ok(()),
            Some(first) => Err(format!("{} rows, of which {first}", differ.len())),
        }
    });
}
