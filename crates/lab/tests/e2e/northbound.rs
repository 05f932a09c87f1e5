//! The Northbound database holds exactly what the objects say: after edits, deletions, and other people's hands.

use std::collections::BTreeSet;

use serde_json::Value;
use ycloud_lab::ask::Heard;

use crate::asking::gateways;
use crate::cluster::{SLOW, SOON, api, apply, delete, eventually, get, nbctl, start_deleting};
use crate::native::{PORTS, service};
use crate::rows::{left_of, rows, scenes};
use crate::scene::Scene;

/// The load balancers of a Service, by name.
fn load_balancers(scene: &Scene, service: &str) -> Vec<String> {
    let prefix = format!("{}/{service}:", scene.name);
    let mut names: Vec<String> = nbctl(&["--bare", "--columns=name", "list", "Load_Balancer"])
        .lines()
        .filter(|name| name.starts_with(&prefix))
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

fn vips(scene: &Scene, service: &str, protocol: &str) -> String {
    let name = format!("name=\"{}/{service}:{protocol}\"", scene.name);
    nbctl(&["--bare", "--columns=vips", "find", "Load_Balancer", &name])
}

#[test]
fn an_edited_service_is_exactly_the_new_one_and_a_deleted_one_leaves_nothing() {
    let mut scene = Scene::new("nb-edit");
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    scene.server("s0", "a", "node-1", "one");
    scene.server("s1", "a", "node-2", "two");
    scene.client("c", "a", "node-3");
    scene.service("svc", &vpc, &[(80, "8080"), (81, "8080")], "one", "");
    scene.pods_ready();
    let vip = scene.programmed("svc", 1);
    assert_eq!(scene.ask("c", &vip, 81, 2).names(), ["s0"]);

    scene.service(
        "svc",
        &vpc,
        &[(82, "8080")],
        "two",
        "  sessionAffinity: ClientIP\n",
    );
    assert_eq!(scene.programmed("svc", 1), vip, "the address stays");
    assert_eq!(scene.ask("c", &vip, 82, 4).names(), ["s1"]);
    assert_ne!(
        scene.knock("c", &vip, 80).0,
        Heard::Answer,
        "a port that went away answers"
    );
    let rows = vips(&scene, "svc", "tcp");
    assert_eq!(
        rows,
        format!("{vip}:82={}:8080", scene.pod_ip("s1")),
        "exactly the new state"
    );
    let name = format!("name=\"{}/svc:tcp\"", scene.name);
    assert_eq!(
        nbctl(&[
            "--bare",
            "--columns=selection_fields",
            "find",
            "Load_Balancer",
            &name
        ]),
        "ip_src"
    );

    delete(&scene.name, "ysvc", "svc");
    eventually("nothing of the Service is left", SOON, || {
        let rows = load_balancers(&scene, "svc");
        let services = get(&["-n", &scene.name, "services,endpointslices"])["items"]
            .as_array()
            .map_or(0, Vec::len);
        if rows.is_empty() && services == 0 {
            Ok(())
        } else {
            Err(format!("{rows:?}, {services} objects"))
        }
    });
}

#[test]
fn deleting_everything_leaves_no_row_vnic_or_address() {
    gateways();
    let mut scene = Scene::new("nb-gone");
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    let other = scene.vpc("w", &[("b", "10.0.1.0/24")]);
    scene.server("s0", "a", "node-1", "web");
    scene.server("s1", "b", "node-2", "web");
    scene.server("s2", "ovn-default", "node-3", "web");
    scene.service("svc", &vpc, &[(80, "8080")], "web", "");
    scene.load_balancer("one", &vpc, "web", "");
    scene.over_vpcs("several", &[&vpc, &other], "web", "");
    let local = "  internalTrafficPolicy: Local\n  selector: {app: web}\n";
    service(&scene, "local", &format!("{local}{PORTS}"));
    scene.pods_ready();
    scene.programmed("svc", 1);
    scene.programmed_eip("one", 1);
    scene.programmed_eip("several", 2);
    let name = scene.name.clone();
    // What shall be gone was there: rows of many tables.
    let tables: BTreeSet<String> = rows()
        .into_values()
        .filter(|row| row.mentions(&name))
        .map(|row| row.table)
        .collect();
    assert!(tables.len() >= 8, "only {tables:?}");
    // As somebody would who knows no order: all at once, and what is in the namespace by Kubernetes.
    start_deleting("", "namespace", &name);
    for (kind, object) in [("subnet", "a"), ("subnet", "b"), ("vpc", "v"), ("vpc", "w")] {
        start_deleting("", kind, &scene.full(object));
    }
    // Of whatever table: this scene's objects are named by nothing that stays.
    eventually("no row names the scene", SLOW, || {
        let rows = rows();
        let left: Vec<_> = rows.values().filter(|row| row.mentions(&name)).collect();
        match left.is_empty() {
            true => Ok(()),
            false => Err(format!("{left:?}")),
        }
    });
    eventually("no object is left", SLOW, || {
        let mut left = Vec::new();
        for kind in ["vnics", "eips", "networkprobes", "services"] {
            left.extend(api().list(&name, kind, "").expect("the API server answers"));
        }
        for kind in ["vpcs", "subnets"] {
            let all = api().list("", kind, "").expect("the API server answers");
            let of_scene = |object: &Value| object["metadata"]["name"].to_string().contains(&name);
            left.extend(all.into_iter().filter(of_scene));
        }
        match left.first() {
            None => Ok(()),
            Some(one) => Err(format!("{} objects, such as {one}", left.len())),
        }
    });
}

#[test]
fn what_somebody_changes_by_hand_is_restored_and_what_is_not_ours_stays() {
    let mut scene = Scene::new("nb-hand");
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    scene.server("s0", "a", "node-1", "web");
    scene.client("c", "a", "node-2");
    scene.service("svc", &vpc, &[(80, "8080")], "web", "");
    scene.pods_ready();
    let vip = scene.programmed("svc", 1);
    let before = vips(&scene, "svc", "tcp");
    let lb = nbctl(&[
        "--bare",
        "--columns=_uuid",
        "find",
        "Load_Balancer",
        &format!("name=\"{}/svc:tcp\"", scene.name),
    ]);
    let switch = scene.full("a");

    // Not ours: a switch, and a load balancer on it.
    nbctl(&[
        "ls-add",
        "by-hand",
        "--",
        "lb-add",
        "by-hand-lb",
        "192.0.2.1:80",
        "192.0.2.2:80",
        "--",
        "ls-lb-add",
        "by-hand",
        "by-hand-lb",
    ]);
    let foreign = || {
        nbctl(&[
            "--bare",
            "--columns=name,load_balancer,external_ids",
            "list",
            "Logical_Switch",
            "by-hand",
        ])
    };
    let foreign_before = foreign();

    let restored = |what: &str| {
        eventually(&format!("restored after: {what}"), SOON, || {
            let now = vips(&scene, "svc", "tcp");
            let answers = scene.ask("c", &vip, 80, 1);
            if now == before && answers.names() == ["s0"] {
                Ok(())
            } else {
                Err(format!("{now:?} {answers:?}"))
            }
        });
    };
    nbctl(&["set", "Load_Balancer", &lb, "vips={}"]);
    restored("vips emptied");
    nbctl(&["lb-del", &lb]);
    restored("load balancer deleted");
    let group = nbctl(&[
        "--bare",
        "--columns=_uuid",
        "find",
        "Load_Balancer_Group",
        &format!("name=\"ycloud/{vpc}\""),
    ]);
    let lb = nbctl(&[
        "--bare",
        "--columns=_uuid",
        "find",
        "Load_Balancer",
        &format!("name=\"{}/svc:tcp\"", scene.name),
    ]);
    nbctl(&[
        "remove",
        "Load_Balancer_Group",
        &group,
        "load_balancer",
        &lb,
    ]);
    restored("load balancer taken out of its group");
    let port = nbctl(&[
        "--bare",
        "--columns=name",
        "find",
        "Logical_Switch_Port",
        &format!("addresses{{>=}}\"{}\"", port_addresses(&scene, "s0")),
    ]);
    nbctl(&["lsp-del", port.trim()]);
    restored("the backend's port deleted");
    nbctl(&["ls-del", &switch]);
    restored("the whole switch deleted");

    assert_eq!(foreign(), foreign_before, "an unowned row was touched");
    nbctl(&["ls-del", "by-hand", "--", "lb-del", "by-hand-lb"]);
}

/// `MAC IP` of a Pod, as its port's `addresses` has it.
fn port_addresses(scene: &Scene, pod: &str) -> String {
    let ip = scene.pod_ip(pod);
    let vnics = get(&["-n", &scene.name, "vnics"]);
    let vnic = vnics["items"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|v| v["status"]["ip"] == ip.as_str())
        .expect("the Pod's VNic");
    format!(
        "{} {ip}",
        vnic["status"]["mac"].as_str().unwrap_or_default()
    )
}

#[test]
fn a_native_headless_service_and_one_of_another_proxy_get_no_row() {
    let scene = Scene::new("nb-none");
    apply(&format!(
        "apiVersion: v1
kind: Service
metadata: {{name: headless, namespace: {ns}}}
spec: {{clusterIP: None, ports: [{{port: 80}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: foreign, namespace: {ns}, labels: {{service.kubernetes.io/service-proxy-name: other}}}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: native, namespace: {ns}}}
spec: {{ports: [{{port: 80}}]}}
",
        ns = scene.name
    ))
    .must();
    eventually("the native Service has its row", SOON, || {
        let rows = load_balancers(&scene, "native");
        if rows.len() == 1 {
            Ok(())
        } else {
            Err(format!("{rows:?}"))
        }
    });
    assert_eq!(load_balancers(&scene, "headless"), Vec::<String>::new());
    assert_eq!(load_balancers(&scene, "foreign"), Vec::<String>::new());
}

/// The last of a run (`.config/nextest.toml`): scenes are told to go, and nobody waits for them but this.
#[test]
fn nothing_of_any_scene_is_left() {
    let shared = |(_, name): &(&str, String)| name.starts_with("e2e-shared-");
    for (kind, name) in scenes().into_iter().filter(shared) {
        // Nobody has told them to go before.
        let deleted = api().delete("", kind, &name, None);
        deleted.expect("the API server answers");
    }
    eventually("no object and no row is left of any scene", SLOW, || {
        let left = left_of(&[]);
        left.is_empty().then_some(()).ok_or_else(|| left.join("\n"))
    });
}
