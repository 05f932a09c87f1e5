//! Tables of database `OVN_Northbound`, ovn-nb(5), schema version 7.11.0.
//!
//! Generated from `schemas/ovn-nb.ovsschema` by `cargo xtask generate-ovsdb`; do not edit.

use std::sync::{Arc, LazyLock};

use uuid::Uuid;

use crate::schema::Schema;
use crate::typed::{Str, enumeration, table};

/// Name of the database.
pub const DATABASE: &str = "OVN_Northbound";

/// The vendored schema. The connected server's own may have more or less.
pub fn schema() -> &'static Arc<Schema> {
    static SCHEMA: LazyLock<Arc<Schema>> =
        LazyLock::new(|| Schema::vendored(include_str!("../../schemas/ovn-nb.ovsschema")));
    &SCHEMA
}

enumeration! {
    /// Values of `ACL` column `action`.
    AclAction {
        Allow = "allow",
        AllowRelated = "allow-related",
        AllowStateless = "allow-stateless",
        Drop = "drop",
        Reject = "reject",
        Pass = "pass",
    }
}

enumeration! {
    /// Values of `ACL` column `direction`.
    AclDirection { FromLport = "from-lport", ToLport = "to-lport", }
}

enumeration! {
    /// Values of `ACL` column `severity`.
    AclSeverity {
        Alert = "alert",
        Warning = "warning",
        Notice = "notice",
        Info = "info",
        Debug = "debug",
    }
}

table! {
    /// Table `ACL`, no root: a row goes when its last strong reference goes.
    Acl, AclRow, "ACL";
    /// Column `action`: string.
    action ACTION "action" choice (AclAction);
    /// Column `direction`: string.
    direction DIRECTION "direction" choice (AclDirection);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `label`: integer (0..=4294967295).
    label LABEL "label" one (i64);
    /// Column `log`: boolean.
    log LOG "log" one (bool);
    /// Column `match`: string.
    match_ MATCH "match" one (Str);
    /// Column `meter`: string, optional.
    meter METER "meter" optional (Str);
    /// Column `name`: string (length ..=63), optional.
    name NAME "name" optional (Str);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `priority`: integer (0..=32767).
    priority PRIORITY "priority" one (i64);
    /// Column `sample_est`: uuid of a row of `Sample` (strong), optional.
    sample_est SAMPLE_EST "sample_est" optional (Uuid);
    /// Column `sample_new`: uuid of a row of `Sample` (strong), optional.
    sample_new SAMPLE_NEW "sample_new" optional (Uuid);
    /// Column `severity`: string, optional.
    severity SEVERITY "severity" optional (AclSeverity);
    /// Column `tier`: integer (0..=3).
    tier TIER "tier" one (i64);
}

table! {
    /// Table `Address_Set`, a root: rows stay until they are deleted.
    AddressSet, AddressSetRow, "Address_Set";
    /// Column `addresses`: string, any number.
    addresses ADDRESSES "addresses" set (Str);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `name`: string.
    name NAME "name" one (Str);
}

enumeration! {
    /// Values of `BFD` column `status`.
    BfdStatus { Down = "down", Init = "init", Up = "up", AdminDown = "admin_down", }
}

table! {
    /// Table `BFD`, a root: rows stay until they are deleted.
    Bfd, BfdRow, "BFD";
    /// Column `detect_mult`: integer (1..), optional.
    detect_mult DETECT_MULT "detect_mult" optional (i64);
    /// Column `dst_ip`: string.
    dst_ip DST_IP "dst_ip" one (Str);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `logical_port`: string.
    logical_port LOGICAL_PORT "logical_port" one (Str);
    /// Column `min_rx`: integer, optional.
    min_rx MIN_RX "min_rx" optional (i64);
    /// Column `min_tx`: integer (1..), optional.
    min_tx MIN_TX "min_tx" optional (i64);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `status`: string, optional.
    status STATUS "status" optional (BfdStatus);
}

table! {
    /// Table `Chassis_Template_Var`, a root: rows stay until they are deleted.
    ChassisTemplateVar, ChassisTemplateVarRow, "Chassis_Template_Var";
    /// Column `chassis`: string.
    chassis CHASSIS "chassis" one (Str);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `variables`: map of string to string.
    variables VARIABLES "variables" map (Str, Str);
}

table! {
    /// Table `Connection`, no root: a row goes when its last strong reference goes.
    Connection, ConnectionRow, "Connection";
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `inactivity_probe`: integer, optional.
    inactivity_probe INACTIVITY_PROBE "inactivity_probe" optional (i64);
    /// Column `is_connected`: boolean.
    is_connected IS_CONNECTED "is_connected" one (bool);
    /// Column `max_backoff`: integer (1000..), optional.
    max_backoff MAX_BACKOFF "max_backoff" optional (i64);
    /// Column `other_config`: map of string to string.
    other_config OTHER_CONFIG "other_config" map (Str, Str);
    /// Column `status`: map of string to string.
    status STATUS "status" map (Str, Str);
    /// Column `target`: string.
    target TARGET "target" one (Str);
}

table! {
    /// Table `Copp`, a root: rows stay until they are deleted.
    Copp, CoppRow, "Copp";
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `meters`: map of string to string.
    meters METERS "meters" map (Str, Str);
    /// Column `name`: string.
    name NAME "name" one (Str);
}

table! {
    /// Table `DHCP_Options`, a root: rows stay until they are deleted.
    DhcpOptions, DhcpOptionsRow, "DHCP_Options";
    /// Column `cidr`: string.
    cidr CIDR "cidr" one (Str);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
}

table! {
    /// Table `DHCP_Relay`, a root: rows stay until they are deleted.
    DhcpRelay, DhcpRelayRow, "DHCP_Relay";
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `servers`: string, optional.
    servers SERVERS "servers" optional (Str);
}

table! {
    /// Table `DNS`, a root: rows stay until they are deleted.
    Dns, DnsRow, "DNS";
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `records`: map of string to string.
    records RECORDS "records" map (Str, Str);
}

table! {
    /// Table `Forwarding_Group`, no root: a row goes when its last strong reference goes.
    ForwardingGroup, ForwardingGroupRow, "Forwarding_Group";
    /// Column `child_port`: string, at least 1.
    child_port CHILD_PORT "child_port" set (Str);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `liveness`: boolean.
    liveness LIVENESS "liveness" one (bool);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `vip`: string.
    vip VIP "vip" one (Str);
    /// Column `vmac`: string.
    vmac VMAC "vmac" one (Str);
}

table! {
    /// Table `Gateway_Chassis`, no root: a row goes when its last strong reference goes.
    GatewayChassis, GatewayChassisRow, "Gateway_Chassis";
    /// Column `chassis_name`: string.
    chassis_name CHASSIS_NAME "chassis_name" one (Str);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `priority`: integer (0..=32767).
    priority PRIORITY "priority" one (i64);
}

table! {
    /// Table `HA_Chassis`, no root: a row goes when its last strong reference goes.
    HaChassis, HaChassisRow, "HA_Chassis";
    /// Column `chassis_name`: string.
    chassis_name CHASSIS_NAME "chassis_name" one (Str);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `priority`: integer (0..=32767).
    priority PRIORITY "priority" one (i64);
}

table! {
    /// Table `HA_Chassis_Group`, a root: rows stay until they are deleted.
    HaChassisGroup, HaChassisGroupRow, "HA_Chassis_Group";
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `ha_chassis`: uuid of a row of `HA_Chassis` (strong), any number.
    ha_chassis HA_CHASSIS "ha_chassis" set (Uuid);
    /// Column `name`: string.
    name NAME "name" one (Str);
}

enumeration! {
    /// Values of `Load_Balancer` column `protocol`.
    LoadBalancerProtocol { Tcp = "tcp", Udp = "udp", Sctp = "sctp", }
}

enumeration! {
    /// Values of `Load_Balancer` column `selection_fields`.
    LoadBalancerSelectionFields {
        EthSrc = "eth_src",
        EthDst = "eth_dst",
        IpSrc = "ip_src",
        IpDst = "ip_dst",
        Ipv6Src = "ipv6_src",
        Ipv6Dst = "ipv6_dst",
        TpSrc = "tp_src",
        TpDst = "tp_dst",
    }
}

table! {
    /// Table `Load_Balancer`, a root: rows stay until they are deleted.
    LoadBalancer, LoadBalancerRow, "Load_Balancer";
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `health_check`: uuid of a row of `Load_Balancer_Health_Check` (strong), any number.
    health_check HEALTH_CHECK "health_check" set (Uuid);
    /// Column `ip_port_mappings`: map of string to string.
    ip_port_mappings IP_PORT_MAPPINGS "ip_port_mappings" map (Str, Str);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `protocol`: string, optional.
    protocol PROTOCOL "protocol" optional (LoadBalancerProtocol);
    /// Column `selection_fields`: string, any number.
    selection_fields SELECTION_FIELDS "selection_fields" set (LoadBalancerSelectionFields);
    /// Column `vips`: map of string to string.
    vips VIPS "vips" map (Str, Str);
}

table! {
    /// Table `Load_Balancer_Group`, a root: rows stay until they are deleted.
    LoadBalancerGroup, LoadBalancerGroupRow, "Load_Balancer_Group";
    /// Column `load_balancer`: uuid of a row of `Load_Balancer` (weak), any number.
    load_balancer LOAD_BALANCER "load_balancer" set (Uuid);
    /// Column `name`: string.
    name NAME "name" one (Str);
}

table! {
    /// Table `Load_Balancer_Health_Check`, no root: a row goes when its last strong reference goes.
    LoadBalancerHealthCheck, LoadBalancerHealthCheckRow, "Load_Balancer_Health_Check";
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `vip`: string.
    vip VIP "vip" one (Str);
}

table! {
    /// Table `Logical_Router`, a root: rows stay until they are deleted.
    LogicalRouter, LogicalRouterRow, "Logical_Router";
    /// Column `copp`: uuid of a row of `Copp` (weak), optional.
    copp COPP "copp" optional (Uuid);
    /// Column `enabled`: boolean, optional.
    enabled ENABLED "enabled" optional (bool);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `load_balancer`: uuid of a row of `Load_Balancer` (weak), any number.
    load_balancer LOAD_BALANCER "load_balancer" set (Uuid);
    /// Column `load_balancer_group`: uuid of a row of `Load_Balancer_Group` (strong), any number.
    load_balancer_group LOAD_BALANCER_GROUP "load_balancer_group" set (Uuid);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `nat`: uuid of a row of `NAT` (strong), any number.
    nat NAT "nat" set (Uuid);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `policies`: uuid of a row of `Logical_Router_Policy` (strong), any number.
    policies POLICIES "policies" set (Uuid);
    /// Column `ports`: uuid of a row of `Logical_Router_Port` (strong), any number.
    ports PORTS "ports" set (Uuid);
    /// Column `static_routes`: uuid of a row of `Logical_Router_Static_Route` (strong), any number.
    static_routes STATIC_ROUTES "static_routes" set (Uuid);
}

enumeration! {
    /// Values of `Logical_Router_Policy` column `action`.
    LogicalRouterPolicyAction {
        Allow = "allow",
        Drop = "drop",
        Reroute = "reroute",
        Jump = "jump",
    }
}

table! {
    /// Table `Logical_Router_Policy`, no root: a row goes when its last strong reference goes.
    LogicalRouterPolicy, LogicalRouterPolicyRow, "Logical_Router_Policy";
    /// Column `action`: string.
    action ACTION "action" choice (LogicalRouterPolicyAction);
    /// Column `bfd_sessions`: uuid of a row of `BFD` (weak), any number.
    bfd_sessions BFD_SESSIONS "bfd_sessions" set (Uuid);
    /// Column `chain`: string, optional.
    chain CHAIN "chain" optional (Str);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `jump_chain`: string, optional.
    jump_chain JUMP_CHAIN "jump_chain" optional (Str);
    /// Column `match`: string.
    match_ MATCH "match" one (Str);
    /// Column `nexthop`: string, optional.
    nexthop NEXTHOP "nexthop" optional (Str);
    /// Column `nexthops`: string, any number.
    nexthops NEXTHOPS "nexthops" set (Str);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `priority`: integer (0..=32767).
    priority PRIORITY "priority" one (i64);
}

table! {
    /// Table `Logical_Router_Port`, no root: a row goes when its last strong reference goes.
    LogicalRouterPort, LogicalRouterPortRow, "Logical_Router_Port";
    /// Column `dhcp_relay`: uuid of a row of `DHCP_Relay` (strong), optional.
    dhcp_relay DHCP_RELAY "dhcp_relay" optional (Uuid);
    /// Column `enabled`: boolean, optional.
    enabled ENABLED "enabled" optional (bool);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `gateway_chassis`: uuid of a row of `Gateway_Chassis` (strong), any number.
    gateway_chassis GATEWAY_CHASSIS "gateway_chassis" set (Uuid);
    /// Column `ha_chassis_group`: uuid of a row of `HA_Chassis_Group` (strong), optional.
    ha_chassis_group HA_CHASSIS_GROUP "ha_chassis_group" optional (Uuid);
    /// Column `ipv6_prefix`: string, any number.
    ipv6_prefix IPV6_PREFIX "ipv6_prefix" set (Str);
    /// Column `ipv6_ra_configs`: map of string to string.
    ipv6_ra_configs IPV6_RA_CONFIGS "ipv6_ra_configs" map (Str, Str);
    /// Column `mac`: string.
    mac MAC "mac" one (Str);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `networks`: string, any number.
    networks NETWORKS "networks" set (Str);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `peer`: string, optional.
    peer PEER "peer" optional (Str);
    /// Column `status`: map of string to string.
    status STATUS "status" map (Str, Str);
}

enumeration! {
    /// Values of `Logical_Router_Static_Route` column `policy`.
    LogicalRouterStaticRoutePolicy { SrcIp = "src-ip", DstIp = "dst-ip", }
}

enumeration! {
    /// Values of `Logical_Router_Static_Route` column `selection_fields`.
    LogicalRouterStaticRouteSelectionFields {
        EthSrc = "eth_src",
        EthDst = "eth_dst",
        IpProto = "ip_proto",
        IpSrc = "ip_src",
        IpDst = "ip_dst",
        Ipv6Src = "ipv6_src",
        Ipv6Dst = "ipv6_dst",
        TpSrc = "tp_src",
        TpDst = "tp_dst",
    }
}

table! {
    /// Table `Logical_Router_Static_Route`, no root: a row goes when its last strong reference goes.
    LogicalRouterStaticRoute, LogicalRouterStaticRouteRow, "Logical_Router_Static_Route";
    /// Column `bfd`: uuid of a row of `BFD` (weak), optional.
    bfd BFD "bfd" optional (Uuid);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `ip_prefix`: string.
    ip_prefix IP_PREFIX "ip_prefix" one (Str);
    /// Column `nexthop`: string.
    nexthop NEXTHOP "nexthop" one (Str);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `output_port`: string, optional.
    output_port OUTPUT_PORT "output_port" optional (Str);
    /// Column `policy`: string, optional.
    policy POLICY "policy" optional (LogicalRouterStaticRoutePolicy);
    /// Column `route_table`: string.
    route_table ROUTE_TABLE "route_table" one (Str);
    /// Column `selection_fields`: string, any number.
    selection_fields SELECTION_FIELDS "selection_fields" set (LogicalRouterStaticRouteSelectionFields);
}

table! {
    /// Table `Logical_Switch`, a root: rows stay until they are deleted.
    LogicalSwitch, LogicalSwitchRow, "Logical_Switch";
    /// Column `acls`: uuid of a row of `ACL` (strong), any number.
    acls ACLS "acls" set (Uuid);
    /// Column `copp`: uuid of a row of `Copp` (weak), optional.
    copp COPP "copp" optional (Uuid);
    /// Column `dns_records`: uuid of a row of `DNS` (weak), any number.
    dns_records DNS_RECORDS "dns_records" set (Uuid);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `forwarding_groups`: uuid of a row of `Forwarding_Group` (strong), any number.
    forwarding_groups FORWARDING_GROUPS "forwarding_groups" set (Uuid);
    /// Column `load_balancer`: uuid of a row of `Load_Balancer` (weak), any number.
    load_balancer LOAD_BALANCER "load_balancer" set (Uuid);
    /// Column `load_balancer_group`: uuid of a row of `Load_Balancer_Group` (strong), any number.
    load_balancer_group LOAD_BALANCER_GROUP "load_balancer_group" set (Uuid);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `other_config`: map of string to string.
    other_config OTHER_CONFIG "other_config" map (Str, Str);
    /// Column `ports`: uuid of a row of `Logical_Switch_Port` (strong), any number.
    ports PORTS "ports" set (Uuid);
    /// Column `qos_rules`: uuid of a row of `QoS` (strong), any number.
    qos_rules QOS_RULES "qos_rules" set (Uuid);
}

table! {
    /// Table `Logical_Switch_Port`, no root: a row goes when its last strong reference goes.
    LogicalSwitchPort, LogicalSwitchPortRow, "Logical_Switch_Port";
    /// Column `addresses`: string, any number.
    addresses ADDRESSES "addresses" set (Str);
    /// Column `dhcpv4_options`: uuid of a row of `DHCP_Options` (weak), optional.
    dhcpv4_options DHCPV4_OPTIONS "dhcpv4_options" optional (Uuid);
    /// Column `dhcpv6_options`: uuid of a row of `DHCP_Options` (weak), optional.
    dhcpv6_options DHCPV6_OPTIONS "dhcpv6_options" optional (Uuid);
    /// Column `dynamic_addresses`: string, optional.
    dynamic_addresses DYNAMIC_ADDRESSES "dynamic_addresses" optional (Str);
    /// Column `enabled`: boolean, optional.
    enabled ENABLED "enabled" optional (bool);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `ha_chassis_group`: uuid of a row of `HA_Chassis_Group` (strong), optional.
    ha_chassis_group HA_CHASSIS_GROUP "ha_chassis_group" optional (Uuid);
    /// Column `mirror_rules`: uuid of a row of `Mirror` (weak), any number.
    mirror_rules MIRROR_RULES "mirror_rules" set (Uuid);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `parent_name`: string, optional.
    parent_name PARENT_NAME "parent_name" optional (Str);
    /// Column `peer`: string, optional.
    peer PEER "peer" optional (Str);
    /// Column `port_security`: string, any number.
    port_security PORT_SECURITY "port_security" set (Str);
    /// Column `tag`: integer (1..=4095), optional.
    tag TAG "tag" optional (i64);
    /// Column `tag_request`: integer (0..=4095), optional.
    tag_request TAG_REQUEST "tag_request" optional (i64);
    /// Column `type`: string.
    type_ TYPE "type" one (Str);
    /// Column `up`: boolean, optional.
    up UP "up" optional (bool);
}

enumeration! {
    /// Values of `Meter` column `unit`.
    MeterUnit { Kbps = "kbps", Pktps = "pktps", }
}

table! {
    /// Table `Meter`, a root: rows stay until they are deleted.
    Meter, MeterRow, "Meter";
    /// Column `bands`: uuid of a row of `Meter_Band` (strong), at least 1.
    bands BANDS "bands" set (Uuid);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `fair`: boolean, optional.
    fair FAIR "fair" optional (bool);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `unit`: string.
    unit UNIT "unit" choice (MeterUnit);
}

enumeration! {
    /// Values of `Meter_Band` column `action`.
    MeterBandAction { Drop = "drop", }
}

table! {
    /// Table `Meter_Band`, no root: a row goes when its last strong reference goes.
    MeterBand, MeterBandRow, "Meter_Band";
    /// Column `action`: string.
    action ACTION "action" choice (MeterBandAction);
    /// Column `burst_size`: integer (0..=4294967295).
    burst_size BURST_SIZE "burst_size" one (i64);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `rate`: integer (1..=4294967295).
    rate RATE "rate" one (i64);
}

enumeration! {
    /// Values of `Mirror` column `filter`.
    MirrorFilter { FromLport = "from-lport", ToLport = "to-lport", Both = "both", }
}

enumeration! {
    /// Values of `Mirror` column `type`.
    MirrorType { Gre = "gre", Erspan = "erspan", Local = "local", }
}

table! {
    /// Table `Mirror`, a root: rows stay until they are deleted.
    Mirror, MirrorRow, "Mirror";
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `filter`: string.
    filter FILTER "filter" choice (MirrorFilter);
    /// Column `index`: integer.
    index INDEX "index" one (i64);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `sink`: string.
    sink SINK "sink" one (Str);
    /// Column `type`: string.
    type_ TYPE "type" choice (MirrorType);
}

enumeration! {
    /// Values of `NAT` column `type`.
    NatType { Dnat = "dnat", Snat = "snat", DnatAndSnat = "dnat_and_snat", }
}

table! {
    /// Table `NAT`, no root: a row goes when its last strong reference goes.
    Nat, NatRow, "NAT";
    /// Column `allowed_ext_ips`: uuid of a row of `Address_Set` (strong), optional.
    allowed_ext_ips ALLOWED_EXT_IPS "allowed_ext_ips" optional (Uuid);
    /// Column `exempted_ext_ips`: uuid of a row of `Address_Set` (strong), optional.
    exempted_ext_ips EXEMPTED_EXT_IPS "exempted_ext_ips" optional (Uuid);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `external_ip`: string.
    external_ip EXTERNAL_IP "external_ip" one (Str);
    /// Column `external_mac`: string, optional.
    external_mac EXTERNAL_MAC "external_mac" optional (Str);
    /// Column `external_port_range`: string.
    external_port_range EXTERNAL_PORT_RANGE "external_port_range" one (Str);
    /// Column `gateway_port`: uuid of a row of `Logical_Router_Port` (weak), optional.
    gateway_port GATEWAY_PORT "gateway_port" optional (Uuid);
    /// Column `logical_ip`: string.
    logical_ip LOGICAL_IP "logical_ip" one (Str);
    /// Column `logical_port`: string, optional.
    logical_port LOGICAL_PORT "logical_port" optional (Str);
    /// Column `match`: string.
    match_ MATCH "match" one (Str);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `priority`: integer (0..=32767).
    priority PRIORITY "priority" one (i64);
    /// Column `type`: string.
    type_ TYPE "type" choice (NatType);
}

table! {
    /// Table `NB_Global`, a root: rows stay until they are deleted.
    NbGlobal, NbGlobalRow, "NB_Global";
    /// Column `connections`: uuid of a row of `Connection` (strong), any number.
    connections CONNECTIONS "connections" set (Uuid);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `hv_cfg`: integer.
    hv_cfg HV_CFG "hv_cfg" one (i64);
    /// Column `hv_cfg_timestamp`: integer.
    hv_cfg_timestamp HV_CFG_TIMESTAMP "hv_cfg_timestamp" one (i64);
    /// Column `ipsec`: boolean.
    ipsec IPSEC "ipsec" one (bool);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `nb_cfg`: integer.
    nb_cfg NB_CFG "nb_cfg" one (i64);
    /// Column `nb_cfg_timestamp`: integer.
    nb_cfg_timestamp NB_CFG_TIMESTAMP "nb_cfg_timestamp" one (i64);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `sb_cfg`: integer.
    sb_cfg SB_CFG "sb_cfg" one (i64);
    /// Column `sb_cfg_timestamp`: integer.
    sb_cfg_timestamp SB_CFG_TIMESTAMP "sb_cfg_timestamp" one (i64);
    /// Column `ssl`: uuid of a row of `SSL` (strong), optional.
    ssl SSL "ssl" optional (Uuid);
}

table! {
    /// Table `Port_Group`, a root: rows stay until they are deleted.
    PortGroup, PortGroupRow, "Port_Group";
    /// Column `acls`: uuid of a row of `ACL` (strong), any number.
    acls ACLS "acls" set (Uuid);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `ports`: uuid of a row of `Logical_Switch_Port` (weak), any number.
    ports PORTS "ports" set (Uuid);
}

enumeration! {
    /// Values of `QoS` column `action`.
    QoSAction { Dscp = "dscp", Mark = "mark", }
}

enumeration! {
    /// Values of `QoS` column `bandwidth`.
    QoSBandwidth { Rate = "rate", Burst = "burst", }
}

enumeration! {
    /// Values of `QoS` column `direction`.
    QoSDirection { FromLport = "from-lport", ToLport = "to-lport", }
}

table! {
    /// Table `QoS`, no root: a row goes when its last strong reference goes.
    QoS, QoSRow, "QoS";
    /// Column `action`: map of string to integer (0..=4294967295).
    action ACTION "action" map (QoSAction, i64);
    /// Column `bandwidth`: map of string to integer (1..=4294967295).
    bandwidth BANDWIDTH "bandwidth" map (QoSBandwidth, i64);
    /// Column `direction`: string.
    direction DIRECTION "direction" choice (QoSDirection);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `match`: string.
    match_ MATCH "match" one (Str);
    /// Column `priority`: integer (0..=32767).
    priority PRIORITY "priority" one (i64);
}

table! {
    /// Table `SSL`, no root: a row goes when its last strong reference goes.
    Ssl, SslRow, "SSL";
    /// Column `bootstrap_ca_cert`: boolean.
    bootstrap_ca_cert BOOTSTRAP_CA_CERT "bootstrap_ca_cert" one (bool);
    /// Column `ca_cert`: string.
    ca_cert CA_CERT "ca_cert" one (Str);
    /// Column `certificate`: string.
    certificate CERTIFICATE "certificate" one (Str);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `private_key`: string.
    private_key PRIVATE_KEY "private_key" one (Str);
    /// Column `ssl_ciphers`: string.
    ssl_ciphers SSL_CIPHERS "ssl_ciphers" one (Str);
    /// Column `ssl_ciphersuites`: string.
    ssl_ciphersuites SSL_CIPHERSUITES "ssl_ciphersuites" one (Str);
    /// Column `ssl_protocols`: string.
    ssl_protocols SSL_PROTOCOLS "ssl_protocols" one (Str);
}

table! {
    /// Table `Sample`, no root: a row goes when its last strong reference goes.
    Sample, SampleRow, "Sample";
    /// Column `collectors`: uuid of a row of `Sample_Collector` (strong), any number.
    collectors COLLECTORS "collectors" set (Uuid);
    /// Column `metadata`: integer (1..=4294967295).
    metadata METADATA "metadata" one (i64);
}

table! {
    /// Table `Sample_Collector`, a root: rows stay until they are deleted.
    SampleCollector, SampleCollectorRow, "Sample_Collector";
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `id`: integer (1..=255).
    id ID "id" one (i64);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `probability`: integer (0..=65535).
    probability PROBABILITY "probability" one (i64);
    /// Column `set_id`: integer (1..=4294967295).
    set_id SET_ID "set_id" one (i64);
}

enumeration! {
    /// Values of `Sampling_App` column `type`.
    SamplingAppType { Drop = "drop", AclNew = "acl-new", AclEst = "acl-est", }
}

table! {
    /// Table `Sampling_App`, a root: rows stay until they are deleted.
    SamplingApp, SamplingAppRow, "Sampling_App";
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `id`: integer (1..=255).
    id ID "id" one (i64);
    /// Column `type`: string.
    type_ TYPE "type" choice (SamplingAppType);
}

table! {
    /// Table `Static_MAC_Binding`, a root: rows stay until they are deleted.
    StaticMacBinding, StaticMacBindingRow, "Static_MAC_Binding";
    /// Column `ip`: string.
    ip IP "ip" one (Str);
    /// Column `logical_port`: string.
    logical_port LOGICAL_PORT "logical_port" one (Str);
    /// Column `mac`: string.
    mac MAC "mac" one (Str);
    /// Column `override_dynamic_mac`: boolean.
    override_dynamic_mac OVERRIDE_DYNAMIC_MAC "override_dynamic_mac" one (bool);
}
