//! VirtualMachineInstances of KubeVirt as backends.

use ycloud_api::service::BackendState;

use super::*;

/// The VirtualMachineInstance `name` of namespace ns, labelled app=web, with this status.
fn vmi(name: &str, status: &str) -> VirtualMachineInstance {
    yaml(&format!(
        "{{metadata: {{name: {name}, namespace: ns, uid: uid-{name}, labels: {{app: web}}}}, status: {status}}}"
    ))
}

/// A launcher Pod of `vmi` at 10.0.0.x of vpc1, with the labels that KubeVirt gives it: those of the guest and its own. As after
/// a migration, it is not ready yet.
fn launcher(vmi: &str, name: &str, node: &str, last: u8) -> (Pod, Option<VNic>) {
    let pod = yaml(&format!(
        "{{metadata: {{name: {name}, namespace: ns, uid: uid-{name}, creationTimestamp: 2026-01-01T00:00:{last:02}Z,
             labels: {{app: web, kubevirt.io: virt-launcher, kubevirt.io/created-by: uid-{vmi}}}}},
           spec: {{nodeName: {node}, containers: [{{name: compute, ports: [{{name: web, containerPort: 8080}}]}}]}},
           status: {{phase: Running, conditions: [{{type: Ready, status: 'False'}}]}}}}"
    ));
    let vnic = yaml(&format!(
        "{{metadata: {{name: v}}, spec: {{subnet: s}}, status: {{ip: 10.0.0.{last}, vpc: vpc1}}}}"
    ));
    (pod, Some(vnic))
}

const ON_N1: &str = "{phase: Running, nodeName: n1}";
const HERE: &str = "http=80 10.0.0.21 rs";
const THERE: &str = "http=80 10.0.0.22 rs";

/// `vm` runs on n1 in Pod `a`; Pod `b` on n2 is where it may go.
fn guest(status: &str) -> World {
    let mut world = World::new();
    world.vmis = Some(vec![vmi("vm", status)]);
    world.pods = vec![launcher("vm", "a", "n1", 21), launcher("vm", "b", "n2", 22)];
    world
}

fn backends(list: &str) -> YusurService {
    ysvc(&format!(
        "{{vpc: vpc1, backends: [{list}], ports: [{{name: http, port: 80}}]}}"
    ))
}

fn by_label() -> YusurService {
    backends("{kind: VM, selector: {matchLabels: {app: web}}}")
}

fn set(world: &mut World, status: &str) {
    world.vmis = Some(vec![vmi("vm", status)]);
}

#[test]
fn virtual_machine_instances_are_vms_by_label_and_name() {
    let all = "{matchLabels: {app: web}}";
    for (list, lines) in [
        (format!("{{kind: VM, selector: {all}}}"), vec![HERE]),
        ("{kind: VM, name: vm}".into(), vec![HERE]),
        ("{kind: VM, name: a}".into(), vec![]),
        (format!("{{kind: BM, selector: {all}}}"), vec![]),
        (format!("{{kind: VNicIP, selector: {all}}}"), vec![]),
        (
            "{kind: VM, selector: {matchLabels: {app: db}}}".into(),
            vec![],
        ),
        ("{kind: VM, namespace: other, name: vm}".into(), vec![]),
        (
            format!("{{kind: VM, name: vm}}, {{kind: VM, selector: {all}}}"),
            vec![HERE],
        ),
    ] {
        let mut world = guest(ON_N1);
        world.vpcs = vec![vpc("vpc1", "{allowedNamespaces: {names: [ns]}}")];
        assert_eq!(
            endpoints(&world.translate(&backends(&list))),
            lines,
            "{list}"
        );
        world.vmis = None;
        let without = world.translate(&backends(&list));
        assert_eq!(endpoints(&without), [""; 0], "{list}");
    }
    // Beside VNics of kind VM.
    let both = guest(ON_N1).vnic("ns/n1 VM vm-1 10.0.0.11");
    let mut lines = endpoints(&both.translate(&by_label()));
    lines.sort();
    assert_eq!(lines, ["http=80 10.0.0.11 rs", HERE]);
}

#[test]
fn a_guest_is_an_endpoint_with_its_own_name_and_its_launchers_node_and_ports() {
    let named = ysvc(
        "{vpc: vpc1, backends: [{kind: VM, name: vm}], ports: [{name: http, port: 80, targetPort: web}]}",
    );
    let translation = guest(ON_N1).translate(&named);
    assert_eq!(endpoints(&translation), ["http=8080 10.0.0.21 rs"]);
    let item = &translation.counts.items[0];
    assert_eq!((item.name.as_str(), item.kind), ("vm", BackendKind::VM));
    assert_eq!(item.address.as_deref(), Some("10.0.0.21"));
    let target = &translation.probes[0].spec.target;
    assert_eq!(
        (target.name.as_deref(), target.port),
        (Some("vm"), Some(8080))
    );
    let objects = translation.objects.unwrap();
    let endpoint = &objects.slices[0].endpoints[0];
    assert_eq!(endpoint.node_name.as_deref(), Some("n1"));
    let target = endpoint.target_ref.as_ref().unwrap();
    assert_eq!(target.kind.as_deref(), Some("VirtualMachineInstance"));
    assert_eq!(target.api_version.as_deref(), Some("kubevirt.io/v1"));
    assert_eq!(target.uid.as_deref(), Some("uid-vm"));
}

#[test]
fn a_launcher_that_a_pod_backend_selects_too_counts_once() {
    let mut both = by_label();
    both.spec.selector = BTreeMap::from([("app".into(), "web".into())]);
    let mut world = guest(ON_N1).pod(1, true);
    let translation = world.translate(&both);
    let mut lines = endpoints(&translation);
    lines.sort();
    assert_eq!(lines, [HERE, "http=80 10.0.0.3 rs"]);
    assert_eq!(translation.counts.summary, "2/2");
    // Where nobody means the guest itself, and where there is no KubeVirt any more, they are Pods like others.
    let pods = ysvc("{vpc: vpc1, selector: {app: web}, ports: [{port: 80}]}");
    assert_eq!(world.translate(&pods).counts.summary, "1/3");
    world.vmis = None;
    assert_eq!(world.translate(&both).counts.summary, "1/3");
}

#[test]
fn the_endpoint_is_where_the_guest_runs() {
    let state = |more: &str| {
        format!("migrationState: {{sourceNode: n1, targetNode: n2, targetPod: b{more}}}")
    };
    let on = |node: &str, state: &str| format!("{{phase: Running, nodeName: {node}, {state}}}");
    let ready = ", sourcePod: a, targetNodeDomainReadyTimestamp: 2026-01-01T00:00:00Z";
    for (status, line) in [
        (ON_N1.to_owned(), HERE),
        // Its launcher is looked for by the node, and the source's by its name.
        (on("n1", &state("")), HERE),
        (on("n1", &state(", sourcePod: a")), HERE),
        (
            on("n1", "migrationState: {sourcePod: a, targetPod: b}"),
            HERE,
        ),
        (on("n1", &state(ready)), THERE),
        (on("n2", &state("")), THERE),
        (on("n2", &state(", sourcePod: a")), THERE),
        (on("n2", &state(", sourcePod: a, completed: true")), THERE),
        (on("n1", &state(", sourcePod: a, completed: true")), THERE),
        (on("n2", "migrationState: {completed: true}"), THERE),
        (
            on(
                "n1",
                &state(", sourcePod: a, completed: true, failed: true"),
            ),
            HERE,
        ),
        (on("n1", &state(", completed: true, failed: true")), HERE),
        // The node is silent: the probe knows better.
        ("{phase: Unknown, nodeName: n1}".into(), HERE),
        // No node is told.
        (
            "{phase: Running, migrationState: {sourceNode: n1, targetPod: b}}".into(),
            HERE,
        ),
        (
            "{phase: Running, migrationState: {targetPod: b}}".into(),
            HERE,
        ),
    ] {
        assert_eq!(
            endpoints(&guest(&status).translate(&by_label())),
            [line],
            "{status}"
        );
    }
    // The source's Pod ended before anybody said that the guest arrived.
    let mut gone = guest(&on("n1", &state(", sourcePod: a")));
    gone.pods[0].0.status.as_mut().unwrap().phase = Some("Succeeded".into());
    assert_eq!(endpoints(&gone.translate(&by_label())), [THERE]);
}

#[test]
fn a_guest_that_migrates_goes_on_until_somebody_could_ask_it() {
    let moved = "{phase: Running, nodeName: n2, migrationState: {sourceNode: n1, sourcePod: a, targetNode: n2, targetPod: b, completed: true}}";
    let mut world = guest(ON_N1);
    world.made = false;
    world.probed(&by_label(), ProbeState::Healthy, "2026-01-01T00:00:00Z", "");
    world.settle(&by_label());
    set(&mut world, moved);
    // It has no probe at the new address.
    let first = world.translate(&by_label());
    assert_eq!(
        (endpoints(&first), first.changes.clone()),
        (vec![THERE.into()], vec![])
    );
    assert_eq!(world.settle(&by_label()), 1, "in one write");
    assert_eq!(first.counts.summary, "1/1");
    assert_eq!(first.probes.len(), 1, "the source is asked no more");
    assert_eq!(first.probes[0].spec.target.ip, "10.0.0.22");
    world.probed(&by_label(), ProbeState::Unknown, "2026-01-01T00:00:01Z", "");
    assert_eq!(endpoints(&world.translate(&by_label())), [THERE]);
    world.probed(
        &by_label(),
        ProbeState::Unhealthy,
        "2026-01-01T00:00:09Z",
        "connection refused",
    );
    let dead = world.translate(&by_label());
    assert_eq!(
        endpoints(&dead),
        ["http=80 10.0.0.22 "],
        "it did not survive"
    );
    assert_eq!(dead.changes[0].name, "vm (10.0.0.22:80)");

    // One that was not healthy before has to prove itself.
    let mut world = guest(ON_N1);
    world.made = false;
    world.probed(
        &by_label(),
        ProbeState::Unhealthy,
        "2026-01-01T00:00:00Z",
        "no",
    );
    world.settle(&by_label());
    set(&mut world, moved);
    assert_eq!(
        endpoints(&world.translate(&by_label())),
        ["http=80 10.0.0.22 "]
    );
}

#[test]
fn a_migration_is_followed_while_the_spec_is_refused() {
    let mut world = guest(ON_N1);
    world.settle(&by_label());
    let mut refused = by_label();
    refused.spec.health_check = Some(yaml("{udp: {}}"));
    assert_eq!(endpoints(&world.translate(&refused)), [HERE]);
    set(
        &mut world,
        "{phase: Running, nodeName: n2, migrationState: {targetNode: n2, targetPod: b, completed: true}}",
    );
    assert_eq!(endpoints(&world.translate(&refused)), [THERE]);
}

#[test]
fn why_a_guest_is_no_endpoint_is_said() {
    for (status, words) in [
        (
            "{phase: Running, nodeName: n1, conditions: [{type: Paused, status: 'True'}]}",
            "the VirtualMachineInstance is paused",
        ),
        (
            "{phase: Scheduling}",
            "the VirtualMachineInstance is Scheduling",
        ),
        ("{}", "the VirtualMachineInstance is not started yet"),
        (
            "{phase: Failed, nodeName: n1}",
            "the VirtualMachineInstance is Failed",
        ),
        (
            "{phase: Succeeded, nodeName: n1}",
            "the VirtualMachineInstance is Succeeded",
        ),
        (
            "{phase: Running, nodeName: n9}",
            "the VirtualMachineInstance has no launcher Pod that lives",
        ),
    ] {
        let mut world = guest(ON_N1);
        world.settle(&by_label());
        set(&mut world, status);
        let translation = world.translate(&by_label());
        let ready = |line: &String| line.ends_with(" r") || line.ends_with(" rs");
        assert!(!endpoints(&translation).iter().any(ready), "{status}");
        let item = &translation.counts.items[0];
        assert_eq!(item.message.as_deref(), Some(words), "{status}");
        assert_eq!(item.state, BackendState::NotReady);
        let change = &translation.changes[0];
        assert_eq!((change.healthy, change.why.as_str()), (false, words));
    }
    let mut world = guest("{phase: Failed, nodeName: n1}");
    for (pod, _) in &mut world.pods {
        pod.status.as_mut().unwrap().phase = Some("Failed".into());
    }
    let ended = world.translate(&by_label());
    said(&ended.resolved, true, reason::RESOLVED, "1 found");
    assert!(!ended.resolved.message.contains("without an address"));
    world.pods.clear();
    set(&mut world, "{phase: Running, nodeName: n1}");
    world.pods.push(launcher("vm", "a", "n1", 21));
    world.pods[0].1 = None;
    let waiting = world.translate(&by_label());
    said(
        &waiting.resolved,
        true,
        reason::RESOLVED,
        "1 without an address yet",
    );
}

#[test]
fn a_selector_that_matches_nothing_says_where_it_looked() {
    let none = backends("{kind: VM, selector: {matchLabels: {app: no}}}");
    let (mut with, without) = (guest(ON_N1), World::new());
    let words = "a VM or BM is a VNic whose spec.attachment names it";
    let found = without.translate(&none).resolved;
    said(&found, false, reason::NO_BACKENDS, words);
    assert!(!found.message.contains("VirtualMachineInstance"));
    let found = with.translate(&none).resolved;
    let words = "names it, or a VirtualMachineInstance";
    said(&found, false, reason::NO_BACKENDS, words);
    with = with.vnic("ns/n1 BM bm-1 10.0.0.11");
    let beside = backends("{kind: BM, name: bm-1}, {kind: VM, selector: {matchLabels: {app: no}}}");
    let words =
        "; spec.backends[1].selector matches no VM, neither a VNic nor a VirtualMachineInstance";
    said(
        &with.translate(&beside).resolved,
        true,
        reason::RESOLVED,
        words,
    );
}

#[test]
fn a_guest_that_is_deleted_drains() {
    let mut world = guest(ON_N1);
    world.settle(&by_label());
    let deleted = Some(time("2026-01-01T00:00:00Z"));
    world.vmis.as_mut().unwrap()[0].metadata.deletion_timestamp = deleted.clone();
    let drains = world.translate(&by_label());
    assert_eq!(endpoints(&drains), ["http=80 10.0.0.21 st"]);
    assert_eq!(drains.changes, [], "it leaves in order");
    set(&mut world, ON_N1);
    // The Pod that a migration left behind is deleted, and the one in which the guest runs.
    world.pods[1].0.metadata.deletion_timestamp = deleted.clone();
    assert_eq!(endpoints(&world.translate(&by_label())), [HERE]);
    world.pods[0].0.metadata.deletion_timestamp = deleted;
    assert_eq!(
        endpoints(&world.translate(&by_label())),
        ["http=80 10.0.0.21 st"]
    );
}

/// What KubeVirt says, one after the other, while `vm` goes from Pod `from` to Pod `to` on other nodes; `fails`: after this
/// many steps it does not.
fn migration(from: u8, to: u8, fails: Option<usize>) -> Vec<String> {
    let named =
        format!("sourceNode: n{from}, sourcePod: p{from}, targetNode: n{to}, targetPod: p{to}");
    let ready = "targetNodeDomainReadyTimestamp: 2026-01-01T00:00:00Z";
    let status = |node: u8, rest: &str| {
        format!("{{phase: Running, nodeName: n{node}, migrationState: {{{named}{rest}}}}}")
    };
    let mut steps = vec![
        format!("{{phase: Running, nodeName: n{from}, migrationState: {{sourceNode: n{from}}}}}"),
        format!(
            "{{phase: Running, nodeName: n{from}, migrationState: {{sourceNode: n{from}, targetPod: p{to}}}}}"
        ),
        status(from, ""),
    ];
    match fails {
        Some(after) => {
            steps.truncate(after);
            steps.push(status(from, ", completed: true, failed: true"));
        }
        None => steps.extend([
            status(from, &format!(", {ready}")),
            status(to, &format!(", {ready}")),
            status(to, &format!(", {ready}, completed: true")),
        ]),
    }
    steps
}

proptest! {
    /// However often and with whatever luck a guest migrates, and however late its former launchers go: one endpoint, always,
    /// which takes connections, is never written without, and is in the end where the guest is.
    #[test]
    fn a_migrating_guest_is_one_endpoint_all_the_time(
        moves in proptest::collection::vec((proptest::option::of(1usize..4), any::<bool>()), 1..6),
    ) {
        let mut world = World::new();
        set(&mut world, "{phase: Running, nodeName: n1}");
        world.pods = vec![launcher("vm", "p1", "n1", 31)];
        world.made = false;
        world.probed(&by_label(), ProbeState::Healthy, "2026-01-01T00:00:00Z", "");
        world.settle(&by_label());
        let mut at = 1;
        for (index, (fails, swept)) in moves.into_iter().enumerate() {
            let to = index as u8 + 2;
            world.pods.push(launcher("vm", &format!("p{to}"), &format!("n{to}"), 30 + to));
            for status in migration(at, to, fails) {
                set(&mut world, &status);
                let translation = world.translate(&by_label());
                let lines = endpoints(&translation);
                prop_assert_eq!(lines.len(), 1, "{}: {:?}", &status, &lines);
                prop_assert!(lines[0].ends_with(" rs"), "{}: {:?}", &status, &lines);
                prop_assert_eq!(translation.probes.len(), 1);
                let slices = &translation.objects.as_ref().unwrap().slices;
                prop_assert_eq!(slices.len(), 1);
                world.settle(&by_label());
                // Its probe has a first result before the next word, or has not.
                if swept {
                    world.probed(&by_label(), ProbeState::Healthy, "2026-01-01T00:00:00Z", "");
                }
            }
            at = if fails.is_none() { to } else { at };
            if swept {
                let name = format!("p{at}");
                world.pods.retain(|(pod, _)| pod.metadata.name.as_ref() == Some(&name));
            }
            let line = format!("http=80 10.0.0.{} rs", 30 + at);
            prop_assert_eq!(endpoints(&world.translate(&by_label())), [line]);
        }
    }
}
