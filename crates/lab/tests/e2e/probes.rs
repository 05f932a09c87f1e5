//! The kubelet's own probes work for Pods of every Vpc, overlapping ones on one node included.

use std::time::Duration;

use crate::cluster::{SLOW, always, apply, condition, eventually, get, in_pod};
use crate::scene::Scene;

/// A Pod on node-1 whose readiness is asked by `probe`.
pub fn pod(scene: &Scene, name: &str, subnet: &str, args: &str, probe: &str) {
    apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {ns}, annotations: {{iaas.yusur.io/subnet: {subnet}}}}}
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 0
  containers:
    - name: server
      image: registry.k8s.io/e2e-test-images/agnhost:2.59
      imagePullPolicy: IfNotPresent
      args: [{args}]
      readinessProbe: {{{probe}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 2}}
      livenessProbe: {{{probe}, periodSeconds: 2, failureThreshold: 15, timeoutSeconds: 2}}
",
        ns = scene.name,
        subnet = scene.full(subnet),
    ))
    .must();
}

#[test]
fn tcp_http_and_grpc_probes_of_two_vpcs_with_equal_cidrs_on_one_node() {
    let mut scene = Scene::new("probes");
    scene.vpc("l", &[("l1", "10.0.1.0/24")]);
    scene.vpc("r", &[("r1", "10.0.1.0/24")]);
    for subnet in ["l1", "r1"] {
        let netexec = "netexec, --http-port=8080, --udp-port=8081";
        pod(
            &scene,
            &format!("{subnet}-http"),
            subnet,
            netexec,
            "httpGet: {path: /hostname, port: 8080}",
        );
        pod(
            &scene,
            &format!("{subnet}-tcp"),
            subnet,
            netexec,
            "tcpSocket: {port: 8080}",
        );
        pod(
            &scene,
            &format!("{subnet}-grpc"),
            subnet,
            "grpc-health-checking, --port=5000",
            "grpc: {port: 5000}",
        );
        pod(
            &scene,
            &format!("{subnet}-closed"),
            subnet,
            netexec,
            "tcpSocket: {port: 8099}",
        );
    }
    for subnet in ["l1", "r1"] {
        for kind in ["http", "tcp", "grpc"] {
            let name = format!("{subnet}-{kind}");
            eventually(&format!("{name} ready"), SLOW, || {
                let pod = get(&["-n", &scene.name, "pod", &name]);
                if condition(&pod, "Ready").0 == "True" {
                    Ok(())
                } else {
                    Err(pod["status"]["containerStatuses"].to_string())
                }
            });
        }
    }
    let addresses: std::collections::BTreeSet<String> = ["l1", "r1"]
        .iter()
        .flat_map(|s| ["http", "tcp", "grpc", "closed"].map(|k| scene.pod_ip(&format!("{s}-{k}"))))
        .collect();
    assert_eq!(
        addresses.len(),
        8,
        "one node never has one address twice: {addresses:?}"
    );
    always(
        "a closed port never becomes ready",
        Duration::from_secs(3),
        || {
            for subnet in ["l1", "r1"] {
                let pod = get(&["-n", &scene.name, "pod", &format!("{subnet}-closed")]);
                if condition(&pod, "Ready").0 == "True" {
                    return Err(format!("{subnet}-closed is ready"));
                }
            }
            Ok(())
        },
    );
}

#[test]
fn a_probe_that_fails_in_one_vpc_does_not_fail_in_the_other() {
    let mut scene = Scene::new("probes-own");
    scene.vpc("l", &[("l1", "10.0.1.0/24")]);
    scene.vpc("r", &[("r1", "10.0.1.0/24")]);
    for subnet in ["l1", "r1"] {
        // Nothing listens on 9000 until it is told to: closing one server's port must not touch the other's.
        pod(
            &scene,
            subnet,
            subnet,
            "netexec, --http-port=8080, --udp-port=8081",
            "tcpSocket: {port: 9000}",
        );
    }
    let serve = "nc -l -k 9000 >/tmp/said 2>&1 </dev/null & echo $! >/tmp/nc
sleep 0.3; kill -0 $(cat /tmp/nc) || { cat /tmp/said; exit 1; }";
    for name in ["l1", "r1"] {
        eventually(&format!("{name} runs"), SLOW, || {
            let printed = in_pod(&scene.name, name, serve);
            if printed.ok {
                Ok(())
            } else {
                Err(printed.out + &printed.err)
            }
        });
    }
    scene.pods_ready();
    in_pod(&scene.name, "l1", "kill $(cat /tmp/nc)").must();
    let ready = |name: &str| condition(&get(&["-n", &scene.name, "pod", name]), "Ready").0;
    eventually("l1 unready once its port is closed", SLOW, || {
        if ready("l1") == "False" {
            Ok(())
        } else {
            Err(ready("l1"))
        }
    });
    always("r1 stays ready", Duration::from_secs(4), || {
        if ready("r1") == "True" {
            Ok(())
        } else {
            Err(ready("r1"))
        }
    });
}
