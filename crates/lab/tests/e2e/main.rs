//! End-to-end tests: objects in, packets out, on a lab that is already up with ycloud installed.
//!
//! `YCLOUD_LAB` names the lab (default `test`); `scripts/test` brings it up and takes it down. A test has a
//! namespace, Vpcs and Subnets of its own and removes them, also when it fails; or shares those of `city`. `README.md` in the folder
//! above says how one is written.

mod asking;
mod backends;
mod backends_draining;
mod backends_followed;
mod backends_kinds;
mod backends_kubevirt;
mod backends_of_every_kind;
mod backends_probes;
mod backends_unhealthy;
mod backends_wiring;
mod bad_input;
mod by_hand;
mod change_of_shape;
mod chassis_service;
mod city;
mod cluster;
mod conntrack_passes;
mod control_plane;
mod default_vpc;
mod dual;
mod dual_cluster;
mod dual_native;
mod dual_vpc;
mod eip_lifecycle;
mod endpoints;
mod entries;
mod failover;
mod isolation;
mod isolation_matrix;
mod loops;
mod native;
mod native_cluster_ip;
mod native_endpoints;
mod native_node_port;
mod northbound;
mod own_chassis;
mod path_mtu;
mod permissions;
mod pools;
mod probes;
mod restart;
mod rows;
mod scenario_cluster;
mod scenario_cluster_ip;
mod scenario_eip;
mod scenario_matrix;
mod scenario_multi_vpc;
mod scene;
mod sctp;
mod thousand;
mod under_way;
