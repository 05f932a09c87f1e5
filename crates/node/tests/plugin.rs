//! The plugin's binary as a container runtime runs it, with a real agent behind it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::pod::{Sandbox, connect};
use support::{Node, on_node, pod_ref};
use tokio_util::sync::CancellationToken;
use ycloud_node::agent::server;

/// Runs the plugin; returns whether it succeeded and what it wrote.
async fn plugin(node: &Node, command: &str, sandbox: &Sandbox, conf: Value) -> (bool, Value) {
    let mut conf = conf;
    conf["name"] = "ycloud".into();
    conf["type"] = "ycloud".into();
    conf["socket"] = node.ovn.path("cni.sock").to_string_lossy().into();
    let variables = [
        ("CNI_COMMAND", command.to_owned()),
        ("CNI_CONTAINERID", sandbox.id.container.clone()),
        ("CNI_NETNS", sandbox.path()),
        ("CNI_IFNAME", "eth0".to_owned()),
        ("CNI_PATH", "/opt/cni/bin".to_owned()),
        (
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=a;K8S_POD_UID=a-uid".to_owned(),
        ),
    ];
    let run = move || {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ycloud"))
            .env_clear()
            .envs(variables)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(conf.to_string().as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let value = match output.stdout.as_slice() {
            [] => Value::Null,
            text => serde_json::from_slice(text).unwrap(),
        };
        (output.status.success(), value)
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[test]
fn every_command_in_every_version_and_without_an_agent() {
    on_node(|node| async move {
        let sandbox = Sandbox::new();
        node.ovn.switch("v1", "s1", "10.0.1.1/24 fd00:1::1/64");
        node.vnic(&pod_ref("a"), "s1", "v1", "10.0.1.5 fd00:1::5");
        let call = async |command: &str, conf: Value| plugin(&node, command, &sandbox, conf).await;

        for (command, expected) in [("ADD", 11), ("DEL", 11), ("STATUS", 50)] {
            let (success, answer) = call(command, json!({"cniVersion": "1.1.0"})).await;
            assert!(
                !success && answer["code"] == expected,
                "{command}: {answer}"
            );
        }
        let (success, answer) = call("VERSION", json!({"cniVersion": "1.0.0"})).await;
        assert!(
            success && answer["supportedVersions"].as_array().unwrap().len() == 4,
            "{answer}"
        );

        let stop = CancellationToken::new();
        let listener = server::bind(&node.ovn.path("cni.sock")).unwrap();
        let served = tokio::spawn(server::serve(node.agent.clone(), listener, stop.clone()));
        for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let (success, result) = call("ADD", json!({"cniVersion": version})).await;
            assert!(success, "{version}: {result}");
            assert_eq!(result["cniVersion"], version);
            assert_eq!(result["ips"][0]["address"], "10.0.1.5/24");
            assert_eq!(result["ips"][1]["address"], "fd00:1::5/64");
            assert_eq!(
                result["routes"][1],
                json!({"dst": "::/0", "gw": "fd00:1::1"})
            );
            assert_eq!(result["interfaces"][1]["sandbox"], sandbox.path());
            if version != "0.3.1" {
                let conf = json!({"cniVersion": version, "prevResult": result});
                let (success, answer) = call("CHECK", conf).await;
                assert!(success, "{version}: {answer}");
            }
        }
        sandbox.serve(80, "a").await;
        assert_eq!(connect("10.0.1.5:80").await.unwrap(), "a");
        let (_, answer) = call("STATUS", json!({"cniVersion": "1.1.0"})).await;
        let details = answer["details"].as_str().unwrap();
        assert!(
            answer["code"] == 50 && details.contains("the node interface"),
            "{answer}"
        );

        let keep = json!([{"containerID": sandbox.id.container, "ifname": "eth0"}]);
        let conf = json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": keep});
        assert_eq!(call("GC", conf).await, (true, Value::Null));
        assert_eq!(node.ovn.pod_ports().len(), 1);
        let conf = json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": []});
        assert_eq!(call("GC", conf).await, (true, Value::Null));
        assert!(node.ovn.pod_ports().is_empty());
        for _ in 0..2 {
            assert_eq!(
                call("DEL", json!({"cniVersion": "1.0.0"})).await,
                (true, Value::Null)
            );
        }
        // An ADD that cannot read its configuration fails, and the DEL that follows it must not.
        for mut conf in [
            json!({"runtimeConfig": {"portMappings": [{"hostPort": "x"}]}}),
            json!({"runtimeConfig": 7, "dns": 7, "prevResult": 7}),
            json!({"cniVersion": "9.0.0"}),
            json!({"cniVersion": 9}),
        ] {
            if conf.get("cniVersion").is_none() {
                conf["cniVersion"] = "1.0.0".into();
            }
            let (_, result) = call("ADD", json!({"cniVersion": "1.0.0"})).await;
            assert_eq!(result["ips"][0]["address"], "10.0.1.5/24", "{conf}");
            assert_eq!(
                call("DEL", conf.clone()).await,
                (true, Value::Null),
                "{conf}"
            );
            assert!(node.ovn.pod_ports().is_empty(), "{conf}");
        }
        let (success, answer) = call(
            "CHECK",
            json!({"cniVersion": "0.4.0", "prevResult": {"ips": [{"address": "10.0.1.5/24"}]}}),
        )
        .await;
        assert!(!success && answer["code"] == 101, "{answer}");
        stop.cancel();
        served.await.unwrap();
    });
}
