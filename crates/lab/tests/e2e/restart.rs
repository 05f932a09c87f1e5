//! Any part is killed, in any order: established connections live on, and a restarted controller writes nothing.

use crate::cluster::{SLOW, eventually, get, kubectl, lab, on};
use crate::endpoints::{assert_still_answering, hold_connection};
use crate::scene::Scene;

/// Every row of the Northbound database with its version, which changes whenever anything writes the row.
fn row_versions() -> String {
    let tables = [
        "NB_Global",
        "Logical_Switch",
        "Logical_Switch_Port",
        "Logical_Router",
        "Logical_Router_Port",
        "Logical_Router_Policy",
        "Logical_Router_Static_Route",
        "Load_Balancer",
        "Load_Balancer_Group",
        "Port_Group",
    ];
    let selects: String = tables
        .iter()
        .map(|t| {
            format!(r#",{{"op":"select","table":"{t}","where":[],"columns":["_uuid","_version"]}}"#)
        })
        .collect();
    let script = format!("ovsdb-client transact tcp:ovn-nb:6641 '[\"OVN_Northbound\"{selects}]'");
    let printed = on("node-1", &script).must();
    // The order of rows in an answer means nothing.
    let mut rows: Vec<&str> = printed.split("{\"_uuid\"").collect();
    rows.sort_unstable();
    rows.join("\n")
}

/// Deletes the Pods of a component and waits until new ones are ready.
pub fn restart_pods(app: &str) {
    let selector = format!("app.kubernetes.io/component={app}");
    kubectl(&[
        "-n",
        "ycloud-system",
        "delete",
        "pods",
        "-l",
        &selector,
        "--grace-period=1",
        "--timeout=60s",
    ])
    .must();
    eventually(&format!("{app} ready again"), SLOW, || {
        let pods = get(&["-n", "ycloud-system", "pods", "-l", &selector]);
        let all = pods["items"].as_array().cloned().unwrap_or_default();
        let ready = all
            .iter()
            .filter(|pod| crate::cluster::condition(pod, "Ready").0 == "True")
            .count();
        if ready == all.len() && ready >= 2 {
            Ok(())
        } else {
            Err(format!("{ready} of {} ready", all.len()))
        }
    });
}

#[test]
fn alone_restarts_of_every_part_lose_no_established_connection_and_write_nothing() {
    let mut scene = Scene::new("restart");
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    scene.server("s0", "a", "node-1", "web");
    scene.server("s1", "a", "node-1", "web");
    scene.client("c", "a", "node-2");
    scene.service("svc", &vpc, &[(80, "8080")], "web", "");
    scene.pods_ready();
    let vip = scene.programmed("svc", 2);
    let (pinned, _) = hold_connection(&scene, &vip);
    for app in ["ycloud-controller", "yusurservice-controller", "ycloud-cni"] {
        restart_pods(app);
        assert_still_answering(&scene, &pinned);
    }
    for (place, part) in [
        ("node-1", "ovn-controller"),
        ("node-2", "ovn-controller"),
        ("node-1", "ovsdb-server"),
        ("node-2", "ovsdb-server"),
        ("control", "kube-apiserver"),
    ] {
        lab(&["restart", place, part]).must();
        assert_still_answering(&scene, &pinned);
    }
    eventually("the API server answers again", SLOW, || {
        let printed = kubectl(&["get", "--raw", "/readyz"]);
        if printed.ok { Ok(()) } else { Err(printed.err) }
    });
    // Everything still works for newcomers.
    scene.server("s2", "a", "node-2", "web");
    scene.programmed("svc", 3);
    let answers = scene.ask("c", &vip, 80, 40);
    assert_eq!((answers.by.len(), answers.failed), (3, 0), "{answers:?}");
}

#[test]
fn alone_a_controllers_restart_writes_nothing() {
    let mut scene = Scene::new("restart-quiet");
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    scene.server("s0", "a", "node-1", "web");
    scene.service("svc", &vpc, &[(80, "8080")], "web", "");
    scene.pods_ready();
    scene.programmed("svc", 1);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let before = row_versions();
    assert!(before.len() > 500, "the database's rows: {before}");
    restart_pods("ycloud-controller");
    restart_pods("yusurservice-controller");
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(row_versions(), before);
}
