//! 10,000 Services of 10 endpoints each in one Vpc: compiling all of them from nothing (wanted: below 1 s), the first
//! comparison with an empty database, one endpoint's change (wanted: below 1 ms), and the next address of a /16 of which
//! 60,000 are taken. 1,000 Services with EIPs over 50 Vpcs: all of them, and one of them that comes and goes.

#[path = "../tests/support/mod.rs"]
mod support;

use std::net::Ipv4Addr;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use support::scale;
use ycloud_compiler::{
    Batch, Event, Object, ObjectKey, ObjectRef, Owner, OwnerIndex, Settings, Snapshot, allocate,
    compile,
};
use ycloud_ovsdb::Schema;

const SERVICES: u32 = 10_000;
const ENDPOINTS: u32 = 10;

fn from<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).expect("an object"))
}

fn service(n: u32) -> Arc<Service> {
    let ip = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 96, 0, 10)) + n).to_string();
    from(json!({
        "metadata": {"namespace": "bench", "name": format!("s{n}"), "annotations": {"iaas.yusur.io/vpc": "vpc1"}},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"name": "http", "protocol": "TCP", "port": 80}]},
    }))
}

fn slice(n: u32, not_ready: Option<u32>) -> Arc<EndpointSlice> {
    let endpoints: Vec<Value> = (0..ENDPOINTS)
        .map(|at| {
            let ip = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 0, 0, 10)) + n * 5 + at);
            json!({"addresses": [ip.to_string()], "conditions": {"ready": not_ready != Some(at)}})
        })
        .collect();
    from(json!({
        "metadata": {"namespace": "bench", "name": format!("s{n}-1"), "labels": {"kubernetes.io/service-name": format!("s{n}")}},
        "addressType": "IPv4", "ports": [{"name": "http", "protocol": "TCP", "port": 8080}], "endpoints": endpoints,
    }))
}

fn objects() -> Vec<Object> {
    let vpc = json!({"apiVersion": "iaas.yusur.io/v1", "kind": "Vpc", "metadata": {"name": "vpc1"}, "spec": {}});
    let subnet = json!({
        "apiVersion": "iaas.yusur.io/v1", "kind": "Subnet", "metadata": {"name": "wide"}, "spec": {"vpc": "vpc1", "cidr": "10.0.0.0/16"},
    });
    let mut objects = vec![Object::Vpc(from(vpc)), Object::Subnet(from(subnet))];
    for n in 0..SERVICES {
        objects.push(Object::Service(service(n)));
        objects.push(Object::EndpointSlice(slice(n, None)));
    }
    objects
}

fn snapshot(objects: &[Object]) -> Snapshot {
    let mut snapshot = Snapshot::new(Settings::default());
    for object in objects {
        snapshot.apply(Event::Apply(object.clone()));
    }
    snapshot
}

fn compile_all(snapshot: &Snapshot) -> usize {
    let owners = snapshot.owners();
    owners.iter().map(|owner| rows_of(snapshot, owner)).sum()
}

fn empty_database() -> ycloud_ovsdb::Snapshot {
    let schema = Schema::parse(include_str!("../../ovsdb/schemas/ovn-nb.ovsschema"));
    let schema = Arc::new(schema.expect("the vendored schema"));
    ycloud_ovsdb::Snapshot::of(&schema, []).expect("no rows")
}

fn first_diff(snapshot: &Snapshot, observed: &ycloud_ovsdb::Snapshot) -> usize {
    let index = OwnerIndex::build(observed);
    let mut batch = Batch::new(observed, &index);
    for owner in snapshot.owners() {
        if let Ok(rows) = compile(snapshot, &owner) {
            batch.add(&owner, &rows);
        }
    }
    batch.into_operations().len()
}

fn services(criterion: &mut Criterion) {
    let objects = objects();
    let mut whole = snapshot(&objects);
    let expected = SERVICES as usize + 2 + 3;
    assert_eq!(compile_all(&whole), expected);

    let mut group = criterion.benchmark_group("10000x10");
    group.sample_size(10);
    group.bench_function("compile all from nothing", |bench| {
        bench.iter_batched(
            || objects.clone(),
            |objects| compile_all(&snapshot(&objects)),
            BatchSize::LargeInput,
        );
    });
    let observed = empty_database();
    group.bench_function("first diff", |bench| {
        bench.iter(|| first_diff(&whole, &observed))
    });
    group.finish();

    let (ready, unready) = (slice(5_000, None), slice(5_000, Some(3)));
    let mut flip = false;
    criterion.bench_function("10000x10/one endpoint's change", |bench| {
        bench.iter(|| {
            flip = !flip;
            let slice = if flip { unready.clone() } else { ready.clone() };
            let dirty = whole.apply(Event::Apply(Object::EndpointSlice(slice)));
            let index = OwnerIndex::default();
            let mut batch = Batch::new(&observed, &index);
            for owner in &dirty {
                if let Ok(rows) = compile(&whole, owner) {
                    batch.add(owner, &rows);
                }
            }
            assert_eq!(dirty.len(), 1);
            batch.into_operations()
        });
    });
}

fn addresses(criterion: &mut Criterion) {
    let mut snapshot = snapshot(&objects()[..2]);
    let vnic = |n: u32, ip: Option<String>| {
        from(json!({
            "apiVersion": "iaas.yusur.io/v1", "kind": "VNic", "metadata": {"namespace": "bench", "name": format!("v{n}")},
            "spec": {"subnet": "wide", "attachment": {"kind": "Pod", "chassis": format!("n{}", n % 500)}}, "status": {"ip": ip},
        }))
    };
    for n in 2..60_000 {
        let ip = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + n).to_string();
        snapshot.apply(Event::Apply(Object::VNic(vnic(n, Some(ip)))));
    }
    let next = vnic(60_000, None);
    criterion.bench_function("next address of a /16 with 60000 taken", |bench| {
        bench.iter(|| allocate(&snapshot, &next).expect("a free address"));
    });
    let owner = Owner::Subnet("wide".to_owned());
    criterion.bench_function("a Subnet's rows with 60000 VNics", |bench| {
        bench.iter(|| compile(&snapshot, &owner).expect("accepted"));
    });
}

/// The cluster of the test of the same size, with its Eips.
fn several_vpcs(objects: &[Object]) -> Snapshot {
    let mut snapshot = snapshot(objects);
    let services: Vec<_> = snapshot.services().map(|(key, _)| key.clone()).collect();
    for key in &services {
        for event in scale::eip_of(&snapshot, key) {
            snapshot.apply(event);
        }
    }
    snapshot
}

fn elastic(criterion: &mut Criterion) {
    let objects = scale::world();
    let mut whole = several_vpcs(&objects);
    let mut group = criterion.benchmark_group("1000 EIPs over 50 Vpcs");
    group.sample_size(10);
    group.bench_function("compile all from nothing", |bench| {
        bench.iter(|| compile_all(&several_vpcs(&objects)));
    });
    // The first one is of one Vpc, the other one over two.
    for n in [1, 5] {
        let of_one = scale::objects_of(n);
        let service = of_one[0].clone();
        let gone = ObjectRef::Service(ObjectKey::new("ns", format!("s{n:04}")));
        let name = format!("a Service over {} goes and comes", of_one.len() - 1);
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let mut dirty = whole.apply(Event::Delete(gone.clone()));
                let less: usize = dirty.iter().map(|o| rows_of(&whole, o)).sum();
                dirty = whole.apply(Event::Apply(service.clone()));
                let more: usize = dirty.iter().map(|o| rows_of(&whole, o)).sum();
                assert!(less < more);
            });
        });
    }
    group.finish();
}

fn rows_of(snapshot: &Snapshot, owner: &Owner) -> usize {
    compile(snapshot, owner).map_or(0, |rows| rows.len())
}

criterion_group!(benches, services, addresses, elastic);
criterion_main!(benches);
