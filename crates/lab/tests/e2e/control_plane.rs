//! The controllers themselves: two replicas, one leader, health, metrics, least privilege.

use crate::cluster::{SLOW, eventually, get, kill, kubectl, on};
use crate::scene::Scene;

fn holder(lease: &str) -> String {
    get(&["-n", "ycloud-system", "lease", lease])["spec"]["holderIdentity"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn alone_the_leader_dies_and_the_other_replica_takes_over() {
    let mut scene = Scene::new("leader");
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    scene.server("s0", "a", "node-1", "web");
    scene.client("c", "a", "node-2");
    scene.pods_ready();
    for lease in ["ycloud-controller", "yusurservice-controller"] {
        let old = eventually("a leader", SLOW, || {
            Some(holder(lease))
                .filter(|h| !h.is_empty())
                .ok_or_else(|| "none".into())
        });
        // The holder is <Pod>_<a number of the process>, so that a restarted container is another holder.
        let pod = old.split('_').next().unwrap_or(&old);
        kill("ycloud-system", pod);
        eventually(&format!("another leader of {lease}"), SLOW, || {
            let new = holder(lease);
            if !new.is_empty() && new != old {
                Ok(())
            } else {
                Err(new)
            }
        });
    }
    scene.service("svc", &vpc, &[(80, "8080")], "web", "");
    let vip = scene.programmed("svc", 1);
    assert_eq!(scene.ask("c", &vip, 80, 4).names(), ["s0"]);
}

#[test]
fn health_and_metrics_answer_on_every_component() {
    for (app, port) in [
        ("ycloud-cni", 9440),
        ("ycloud-controller", 9441),
        ("yusurservice-controller", 9442),
    ] {
        let selector = format!("app.kubernetes.io/component={app}");
        let pods = get(&["-n", "ycloud-system", "pods", "-l", &selector]);
        let nodes: Vec<String> = pods["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|p| p["spec"]["nodeName"].as_str().map(str::to_owned))
            .collect();
        assert!(nodes.len() >= 2, "{app} runs on {nodes:?}");
        for node in &nodes {
            for path in ["healthz", "readyz"] {
                on(
                    node,
                    &format!("curl -sf -m 3 http://127.0.0.1:{port}/{path}"),
                )
                .must();
            }
            let metrics = on(
                node,
                &format!("curl -sf -m 3 http://127.0.0.1:{port}/metrics"),
            )
            .must();
            assert!(
                metrics.contains("# TYPE ycloud_"),
                "{app} on {node}: {metrics}"
            );
        }
    }
}

#[test]
fn the_service_accounts_may_no_more_than_they_need() {
    for account in ["ycloud-controller", "yusurservice-controller", "ycloud-cni"] {
        let user = format!("--as=system:serviceaccount:ycloud-system:{account}");
        for (verb, what) in [
            ("get", "secrets"),
            ("delete", "nodes"),
            ("create", "pods"),
            ("create", "clusterrolebindings"),
            ("get", "configmaps"),
        ] {
            let printed = kubectl(&["auth", "can-i", verb, what, "--all-namespaces", &user]);
            assert_eq!(printed.out.trim(), "no", "{account} may {verb} {what}");
        }
    }
}
