//! Backends that flap: what they make yusurservice-controller plan, and ycloud-controller write into a real ovsdb-server, is
//! bounded by time alone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::{Controller, Server, now, read};
use k8s_openapi::api::core::v1::Service;
use ycloud_api::{NetworkProbe, Subnet, VNic, Vpc, YusurService};
use ycloud_compiler::{Event, Object, ObjectKey};
use ycloud_controller::watch::Change;
use ycloud_controller::yusurservice::pending::Pending;
use ycloud_controller::yusurservice::plan::plan;
use ycloud_controller::yusurservice::probes::reduce_probe;
use ycloud_controller::yusurservice::world::{News, World};
use ycloud_ovsdb::nb;

const BACKENDS: usize = 50;

/// How often each of them is another one than before.
const FLAP: Duration = Duration::from_millis(200);

const FLAPPING: Duration = Duration::from_secs(10);

/// Transactions of the Northbound database in that time: 20 at once, and two a second.
const BOUND: usize = 20 + 2 * FLAPPING.as_secs() as usize;

/// Both controllers, without an API server: what one writes the other reads.
struct Both {
    world: World,
    pending: Pending,
    controller: Controller,
    key: ObjectKey,
    plans: usize,
}

impl Both {
    /// A YusurService of machines in one Vpc, programmed, with all probes healthy; and the probes.
    async fn start(server: &Server) -> (Self, Vec<NetworkProbe>) {
        let vpc =
            read::<Vpc>("{metadata: {name: vpc1}, spec: {allowedNamespaces: {selector: {}}}}");
        let subnet =
            read::<Subnet>("{metadata: {name: s, uid: u}, spec: {vpc: vpc1, cidr: 10.0.1.0/24}}");
        let vnics = (0..BACKENDS).map(|n| {
            let ip = format!("10.0.1.{}", n + 10);
            read::<VNic>(&format!(
                "{{metadata: {{name: x{n}, namespace: ns, uid: u{n}, labels: {{app: db}}}},
                   spec: {{subnet: s, attachment: {{kind: VM, name: vm-{n}, chassis: node-1}}}},
                   status: {{ip: {ip}, prefixLength: 24, gateway: 10.0.1.1, mac: '0a:00:0a:00:01:09', vpc: vpc1, phase: Up}}}}"
            ))
        });
        let vnics: Vec<_> = vnics.collect();
        let mut world = World::default();
        world.apply(News::Vpc(Change::Apply(Vpc::clone(&vpc))));
        let mut objects = vec![Object::Vpc(vpc), Object::Subnet(subnet)];
        for vnic in vnics {
            world.apply(News::VNic(Change::Apply(VNic::clone(&vnic))));
            objects.push(Object::VNic(vnic));
        }
        let ysvc = read::<YusurService>(
            "{metadata: {name: svc, namespace: ns, uid: u, generation: 1},
              spec: {vpc: vpc1, backends: [{kind: VM, selector: {matchLabels: {app: db}}}], ports: [{name: http, port: 80}]}}",
        );
        let ysvc = YusurService::clone(&ysvc);
        world.apply(News::YusurService(Box::new(Change::Apply(ysvc))));
        let mut both = Self {
            world,
            pending: Pending::default(),
            controller: Controller::start(server, &objects).await,
            key: ObjectKey::new("ns", "svc"),
            plans: 0,
        };
        let begun = plan(&both.world, &both.key, &now()).expect("a plan");
        let probes = begun.wanted_probes;
        for probe in &probes {
            both.probe(probe, true);
        }
        both.carry_out().await;
        // Once more, with the Service's address.
        both.carry_out().await;
        (both, probes)
    }

    /// What a probe says now; the YusurServices that it concerns.
    fn probe(&mut self, probe: &NetworkProbe, healthy: bool) -> BTreeSet<ObjectKey> {
        let mut probe = probe.clone();
        let state = if healthy { "Healthy" } else { "Unhealthy" };
        let status = format!("{{state: {state}, since: 2026-01-01T00:00:00Z}}");
        probe.status = Some(serde_yaml::from_str(&status).unwrap());
        reduce_probe(&mut probe);
        let change = Change::Apply(probe);
        self.world.apply(News::NetworkProbe(Box::new(change)))
    }

    /// Plans, and writes what is planned: for the API server, which is both controllers' worlds here, and for OVN.
    async fn carry_out(&mut self) {
        self.plans += 1;
        let plan = plan(&self.world, &self.key, &now()).expect("a plan");
        for slice in plan.slices {
            let object = Object::EndpointSlice(slice.clone().into());
            self.world.apply(News::EndpointSlice(Change::Apply(slice)));
            self.controller.state.take_in(Event::Apply(object));
        }
        if let Some(mut service) = plan.service {
            let spec = service.spec.get_or_insert_default();
            spec.cluster_ip = Some("10.96.0.7".into());
            spec.cluster_ips = Some(vec!["10.96.0.7".into()]);
            self.serve(service);
        }
        self.controller.settle().await;
    }

    fn serve(&mut self, service: Service) {
        let object = Object::Service(service.clone().into());
        self.world.apply(News::Service(Change::Apply(service)));
        self.controller.state.take_in(Event::Apply(object));
    }

    /// Lets time pass until `now`: what is due by then is carried out.
    async fn pass(&mut self, now: Instant) {
        self.pending.pass(now);
        while self.pending.take(&BTreeSet::new()).is_some() {
            self.carry_out().await;
        }
    }

    /// How many backends the load balancer has.
    fn backends(&self) -> usize {
        let rows = self.controller.rows(nb::LoadBalancer::TABLE);
        let vips = rows.iter().filter_map(|row| row.get("vips")?.as_map());
        let backends = vips.filter_map(|vips| vips.get_str("10.96.0.7:80").map(str::to_owned));
        let backends: String = backends.collect();
        backends.split(',').filter(|one| !one.is_empty()).count()
    }
}

/// Each flap is planned for as the controller would, on a clock of the test's own; a plan and its transaction take no time, so
/// that nothing but the bound holds them up.
#[tokio::test]
async fn what_flapping_backends_write_is_bounded() {
    let server = Server::start().await;
    let (mut both, probes) = Both::start(&server).await;
    assert_eq!((probes.len(), both.backends()), (BACKENDS, BACKENDS));
    let (start, before, plans) = (Instant::now(), both.controller.transactions, both.plans);
    let step = FLAP / u32::try_from(BACKENDS).unwrap();
    let rounds = FLAPPING.as_millis() / FLAP.as_millis();
    let (mut clock, mut flaps) = (start, 0);
    for round in 0..rounds {
        for (n, probe) in probes.iter().enumerate() {
            clock += step;
            let healthy = (usize::try_from(round).unwrap() + n) % 2 == 1;
            flaps += 1;
            for key in both.probe(probe, healthy) {
                both.pending.probed(key, clock);
            }
            both.pass(clock).await;
        }
    }
    let written = both.controller.transactions - before;
    let plans = both.plans - plans;
    println!("{flaps} flaps, {plans} plans, {written} transactions; at most {BOUND}");
    assert!(written <= plans && plans <= BOUND, "{plans} {written}");
    assert!(written > 10, "they do follow: {written}");

    // The last word is heard, and soon.
    for (n, probe) in probes.iter().enumerate() {
        for key in both.probe(probe, n < 7) {
            both.pending.probed(key, clock);
        }
    }
    while let Some(due) = both.pending.next_due() {
        assert!(due <= clock + Duration::from_secs(1));
        both.pass(due).await;
    }
    both.pass(clock).await;
    assert_eq!(both.backends(), 7);
}
