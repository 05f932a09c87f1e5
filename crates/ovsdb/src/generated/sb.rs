//! Tables of database `OVN_Southbound`, ovn-sb(5), schema version 20.41.0.
//!
//! Generated from `schemas/ovn-sb.ovsschema` by `cargo xtask generate-ovsdb`; do not edit.

use std::sync::{Arc, LazyLock};

use uuid::Uuid;

use crate::schema::Schema;
use crate::typed::{Str, enumeration, table};

/// Name of the database.
pub const DATABASE: &str = "OVN_Southbound";

/// The vendored schema. The connected server's own may have more or less.
pub fn schema() -> &'static Arc<Schema> {
    static SCHEMA: LazyLock<Arc<Schema>> =
        LazyLock::new(|| Schema::vendored(include_str!("../../schemas/ovn-sb.ovsschema")));
    &SCHEMA
}

table! {
    /// Table `ACL_ID`, a root: rows stay until they are deleted.
    AclId, AclIdRow, "ACL_ID";
    /// Column `id`: integer (0..=32767).
    id ID "id" one (i64);
}

table! {
    /// Table `Address_Set`, a root: rows stay until they are deleted.
    AddressSet, AddressSetRow, "Address_Set";
    /// Column `addresses`: string, any number.
    addresses ADDRESSES "addresses" set (Str);
    /// Column `name`: string.
    name NAME "name" one (Str);
}

table! {
    /// Table `Advertised_Route`, a root: rows stay until they are deleted.
    AdvertisedRoute, AdvertisedRouteRow, "Advertised_Route";
    /// Column `datapath`: uuid of a row of `Datapath_Binding` (strong).
    datapath DATAPATH "datapath" one (Uuid);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `ip_prefix`: string.
    ip_prefix IP_PREFIX "ip_prefix" one (Str);
    /// Column `logical_port`: uuid of a row of `Port_Binding` (strong).
    logical_port LOGICAL_PORT "logical_port" one (Uuid);
    /// Column `tracked_port`: uuid of a row of `Port_Binding` (strong), optional.
    tracked_port TRACKED_PORT "tracked_port" optional (Uuid);
}

enumeration! {
    /// Values of `BFD` column `status`.
    BfdStatus { Down = "down", Init = "init", Up = "up", AdminDown = "admin_down", }
}

table! {
    /// Table `BFD`, a root: rows stay until they are deleted.
    Bfd, BfdRow, "BFD";
    /// Column `chassis_name`: string.
    chassis_name CHASSIS_NAME "chassis_name" one (Str);
    /// Column `detect_mult`: integer.
    detect_mult DETECT_MULT "detect_mult" one (i64);
    /// Column `disc`: integer.
    disc DISC "disc" one (i64);
    /// Column `dst_ip`: string.
    dst_ip DST_IP "dst_ip" one (Str);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `logical_port`: string.
    logical_port LOGICAL_PORT "logical_port" one (Str);
    /// Column `min_rx`: integer.
    min_rx MIN_RX "min_rx" one (i64);
    /// Column `min_tx`: integer.
    min_tx MIN_TX "min_tx" one (i64);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `src_port`: integer (49152..=65535).
    src_port SRC_PORT "src_port" one (i64);
    /// Column `status`: string.
    status STATUS "status" choice (BfdStatus);
}

table! {
    /// Table `Chassis`, a root: rows stay until they are deleted.
    Chassis, ChassisRow, "Chassis";
    /// Column `encaps`: uuid of a row of `Encap` (strong), at least 1.
    encaps ENCAPS "encaps" set (Uuid);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `hostname`: string.
    hostname HOSTNAME "hostname" one (Str);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `nb_cfg`: integer.
    nb_cfg NB_CFG "nb_cfg" one (i64);
    /// Column `other_config`: map of string to string.
    other_config OTHER_CONFIG "other_config" map (Str, Str);
    /// Column `transport_zones`: string, any number.
    transport_zones TRANSPORT_ZONES "transport_zones" set (Str);
    /// Column `vtep_logical_switches`: string, any number.
    vtep_logical_switches VTEP_LOGICAL_SWITCHES "vtep_logical_switches" set (Str);
}

table! {
    /// Table `Chassis_Private`, a root: rows stay until they are deleted.
    ChassisPrivate, ChassisPrivateRow, "Chassis_Private";
    /// Column `chassis`: uuid of a row of `Chassis` (weak), optional.
    chassis CHASSIS "chassis" optional (Uuid);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `nb_cfg`: integer.
    nb_cfg NB_CFG "nb_cfg" one (i64);
    /// Column `nb_cfg_timestamp`: integer.
    nb_cfg_timestamp NB_CFG_TIMESTAMP "nb_cfg_timestamp" one (i64);
}

table! {
    /// Table `Chassis_Template_Var`, a root: rows stay until they are deleted.
    ChassisTemplateVar, ChassisTemplateVarRow, "Chassis_Template_Var";
    /// Column `chassis`: string.
    chassis CHASSIS "chassis" one (Str);
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
    /// Column `read_only`: boolean.
    read_only READ_ONLY "read_only" one (bool);
    /// Column `role`: string.
    role ROLE "role" one (Str);
    /// Column `status`: map of string to string.
    status STATUS "status" map (Str, Str);
    /// Column `target`: string.
    target TARGET "target" one (Str);
}

enumeration! {
    /// Values of `Controller_Event` column `event_type`.
    ControllerEventEventType { EmptyLbBackends = "empty_lb_backends", }
}

table! {
    /// Table `Controller_Event`, a root: rows stay until they are deleted.
    ControllerEvent, ControllerEventRow, "Controller_Event";
    /// Column `chassis`: uuid of a row of `Chassis` (weak), optional.
    chassis CHASSIS "chassis" optional (Uuid);
    /// Column `event_info`: map of string to string.
    event_info EVENT_INFO "event_info" map (Str, Str);
    /// Column `event_type`: string.
    event_type EVENT_TYPE "event_type" choice (ControllerEventEventType);
    /// Column `seq_num`: integer.
    seq_num SEQ_NUM "seq_num" one (i64);
}

enumeration! {
    /// Values of `DHCP_Options` column `type`.
    DhcpOptionsType {
        Bool = "bool",
        Uint8 = "uint8",
        Uint16 = "uint16",
        Uint32 = "uint32",
        Ipv4 = "ipv4",
        StaticRoutes = "static_routes",
        Str = "str",
        HostId = "host_id",
        Domains = "domains",
    }
}

table! {
    /// Table `DHCP_Options`, a root: rows stay until they are deleted.
    DhcpOptions, DhcpOptionsRow, "DHCP_Options";
    /// Column `code`: integer (0..=254).
    code CODE "code" one (i64);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `type`: string.
    type_ TYPE "type" choice (DhcpOptionsType);
}

enumeration! {
    /// Values of `DHCPv6_Options` column `type`.
    Dhcpv6OptionsType { Ipv6 = "ipv6", Str = "str", Mac = "mac", Domain = "domain", }
}

table! {
    /// Table `DHCPv6_Options`, a root: rows stay until they are deleted.
    Dhcpv6Options, Dhcpv6OptionsRow, "DHCPv6_Options";
    /// Column `code`: integer (0..=254).
    code CODE "code" one (i64);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `type`: string.
    type_ TYPE "type" choice (Dhcpv6OptionsType);
}

table! {
    /// Table `DNS`, a root: rows stay until they are deleted.
    Dns, DnsRow, "DNS";
    /// Column `datapaths`: uuid of a row of `Datapath_Binding` (strong), at least 1.
    datapaths DATAPATHS "datapaths" set (Uuid);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `records`: map of string to string.
    records RECORDS "records" map (Str, Str);
}

table! {
    /// Table `Datapath_Binding`, a root: rows stay until they are deleted.
    DatapathBinding, DatapathBindingRow, "Datapath_Binding";
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `load_balancers`: uuid, any number.
    load_balancers LOAD_BALANCERS "load_balancers" set (Uuid);
    /// Column `tunnel_key`: integer (1..=16777215).
    tunnel_key TUNNEL_KEY "tunnel_key" one (i64);
}

table! {
    /// Table `ECMP_Nexthop`, a root: rows stay until they are deleted.
    EcmpNexthop, EcmpNexthopRow, "ECMP_Nexthop";
    /// Column `datapath`: uuid of a row of `Datapath_Binding` (strong).
    datapath DATAPATH "datapath" one (Uuid);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `mac`: string.
    mac MAC "mac" one (Str);
    /// Column `nexthop`: string.
    nexthop NEXTHOP "nexthop" one (Str);
    /// Column `port`: uuid of a row of `Port_Binding` (strong).
    port PORT "port" one (Uuid);
}

enumeration! {
    /// Values of `Encap` column `type`.
    EncapType { Geneve = "geneve", Stt = "stt", Vxlan = "vxlan", }
}

table! {
    /// Table `Encap`, no root: a row goes when its last strong reference goes.
    Encap, EncapRow, "Encap";
    /// Column `chassis_name`: string.
    chassis_name CHASSIS_NAME "chassis_name" one (Str);
    /// Column `ip`: string.
    ip IP "ip" one (Str);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `type`: string.
    type_ TYPE "type" choice (EncapType);
}

table! {
    /// Table `FDB`, a root: rows stay until they are deleted.
    Fdb, FdbRow, "FDB";
    /// Column `dp_key`: integer (1..=16777215).
    dp_key DP_KEY "dp_key" one (i64);
    /// Column `mac`: string.
    mac MAC "mac" one (Str);
    /// Column `port_key`: integer (1..=16777215).
    port_key PORT_KEY "port_key" one (i64);
    /// Column `timestamp`: integer.
    timestamp TIMESTAMP "timestamp" one (i64);
}

table! {
    /// Table `Gateway_Chassis`, no root: a row goes when its last strong reference goes.
    GatewayChassis, GatewayChassisRow, "Gateway_Chassis";
    /// Column `chassis`: uuid of a row of `Chassis` (weak), optional.
    chassis CHASSIS "chassis" optional (Uuid);
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
    /// Column `chassis`: uuid of a row of `Chassis` (weak), optional.
    chassis CHASSIS "chassis" optional (Uuid);
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
    /// Column `ref_chassis`: uuid of a row of `Chassis` (weak), any number.
    ref_chassis REF_CHASSIS "ref_chassis" set (Uuid);
}

table! {
    /// Table `IGMP_Group`, a root: rows stay until they are deleted.
    IgmpGroup, IgmpGroupRow, "IGMP_Group";
    /// Column `address`: string.
    address ADDRESS "address" one (Str);
    /// Column `chassis`: uuid of a row of `Chassis` (weak), optional.
    chassis CHASSIS "chassis" optional (Uuid);
    /// Column `chassis_name`: string.
    chassis_name CHASSIS_NAME "chassis_name" one (Str);
    /// Column `datapath`: uuid of a row of `Datapath_Binding` (weak), optional.
    datapath DATAPATH "datapath" optional (Uuid);
    /// Column `ports`: uuid of a row of `Port_Binding` (weak), any number.
    ports PORTS "ports" set (Uuid);
    /// Column `protocol`: string.
    protocol PROTOCOL "protocol" one (Str);
}

table! {
    /// Table `IP_Multicast`, a root: rows stay until they are deleted.
    IpMulticast, IpMulticastRow, "IP_Multicast";
    /// Column `datapath`: uuid of a row of `Datapath_Binding` (weak).
    datapath DATAPATH "datapath" one (Uuid);
    /// Column `enabled`: boolean, optional.
    enabled ENABLED "enabled" optional (bool);
    /// Column `eth_src`: string.
    eth_src ETH_SRC "eth_src" one (Str);
    /// Column `idle_timeout`: integer, optional.
    idle_timeout IDLE_TIMEOUT "idle_timeout" optional (i64);
    /// Column `ip4_src`: string.
    ip4_src IP4_SRC "ip4_src" one (Str);
    /// Column `ip6_src`: string.
    ip6_src IP6_SRC "ip6_src" one (Str);
    /// Column `querier`: boolean, optional.
    querier QUERIER "querier" optional (bool);
    /// Column `query_interval`: integer, optional.
    query_interval QUERY_INTERVAL "query_interval" optional (i64);
    /// Column `query_max_resp`: integer, optional.
    query_max_resp QUERY_MAX_RESP "query_max_resp" optional (i64);
    /// Column `seq_no`: integer.
    seq_no SEQ_NO "seq_no" one (i64);
    /// Column `table_size`: integer, optional.
    table_size TABLE_SIZE "table_size" optional (i64);
}

table! {
    /// Table `Learned_Route`, a root: rows stay until they are deleted.
    LearnedRoute, LearnedRouteRow, "Learned_Route";
    /// Column `datapath`: uuid of a row of `Datapath_Binding` (strong).
    datapath DATAPATH "datapath" one (Uuid);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `ip_prefix`: string.
    ip_prefix IP_PREFIX "ip_prefix" one (Str);
    /// Column `logical_port`: uuid of a row of `Port_Binding` (strong).
    logical_port LOGICAL_PORT "logical_port" one (Uuid);
    /// Column `nexthop`: string.
    nexthop NEXTHOP "nexthop" one (Str);
}

enumeration! {
    /// Values of `Load_Balancer` column `protocol`.
    LoadBalancerProtocol { Tcp = "tcp", Udp = "udp", Sctp = "sctp", }
}

table! {
    /// Table `Load_Balancer`, a root: rows stay until they are deleted.
    LoadBalancer, LoadBalancerRow, "Load_Balancer";
    /// Column `datapath_group`: uuid of a row of `Logical_DP_Group` (strong), optional.
    datapath_group DATAPATH_GROUP "datapath_group" optional (Uuid);
    /// Column `datapaths`: uuid of a row of `Datapath_Binding` (strong), any number.
    datapaths DATAPATHS "datapaths" set (Uuid);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `lr_datapath_group`: uuid of a row of `Logical_DP_Group` (strong), optional.
    lr_datapath_group LR_DATAPATH_GROUP "lr_datapath_group" optional (Uuid);
    /// Column `ls_datapath_group`: uuid of a row of `Logical_DP_Group` (strong), optional.
    ls_datapath_group LS_DATAPATH_GROUP "ls_datapath_group" optional (Uuid);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `protocol`: string, optional.
    protocol PROTOCOL "protocol" optional (LoadBalancerProtocol);
    /// Column `vips`: map of string to string.
    vips VIPS "vips" map (Str, Str);
}

table! {
    /// Table `Logical_DP_Group`, no root: a row goes when its last strong reference goes.
    LogicalDpGroup, LogicalDpGroupRow, "Logical_DP_Group";
    /// Column `datapaths`: uuid of a row of `Datapath_Binding` (weak), any number.
    datapaths DATAPATHS "datapaths" set (Uuid);
}

enumeration! {
    /// Values of `Logical_Flow` column `pipeline`.
    LogicalFlowPipeline { Ingress = "ingress", Egress = "egress", }
}

table! {
    /// Table `Logical_Flow`, a root: rows stay until they are deleted.
    LogicalFlow, LogicalFlowRow, "Logical_Flow";
    /// Column `actions`: string.
    actions ACTIONS "actions" one (Str);
    /// Column `controller_meter`: string, optional.
    controller_meter CONTROLLER_METER "controller_meter" optional (Str);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `flow_desc`: string, optional.
    flow_desc FLOW_DESC "flow_desc" optional (Str);
    /// Column `logical_datapath`: uuid of a row of `Datapath_Binding` (strong), optional.
    logical_datapath LOGICAL_DATAPATH "logical_datapath" optional (Uuid);
    /// Column `logical_dp_group`: uuid of a row of `Logical_DP_Group` (strong), optional.
    logical_dp_group LOGICAL_DP_GROUP "logical_dp_group" optional (Uuid);
    /// Column `match`: string.
    match_ MATCH "match" one (Str);
    /// Column `pipeline`: string.
    pipeline PIPELINE "pipeline" choice (LogicalFlowPipeline);
    /// Column `priority`: integer (0..=65535).
    priority PRIORITY "priority" one (i64);
    /// Column `table_id`: integer (0..=32).
    table_id TABLE_ID "table_id" one (i64);
    /// Column `tags`: map of string to string.
    tags TAGS "tags" map (Str, Str);
}

table! {
    /// Table `MAC_Binding`, a root: rows stay until they are deleted.
    MacBinding, MacBindingRow, "MAC_Binding";
    /// Column `datapath`: uuid of a row of `Datapath_Binding` (strong).
    datapath DATAPATH "datapath" one (Uuid);
    /// Column `ip`: string.
    ip IP "ip" one (Str);
    /// Column `logical_port`: string.
    logical_port LOGICAL_PORT "logical_port" one (Str);
    /// Column `mac`: string.
    mac MAC "mac" one (Str);
    /// Column `timestamp`: integer.
    timestamp TIMESTAMP "timestamp" one (i64);
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

table! {
    /// Table `Multicast_Group`, a root: rows stay until they are deleted.
    MulticastGroup, MulticastGroupRow, "Multicast_Group";
    /// Column `datapath`: uuid of a row of `Datapath_Binding` (strong).
    datapath DATAPATH "datapath" one (Uuid);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `ports`: uuid of a row of `Port_Binding` (weak), any number.
    ports PORTS "ports" set (Uuid);
    /// Column `tunnel_key`: integer (32768..=65535).
    tunnel_key TUNNEL_KEY "tunnel_key" one (i64);
}

table! {
    /// Table `Port_Binding`, a root: rows stay until they are deleted.
    PortBinding, PortBindingRow, "Port_Binding";
    /// Column `additional_chassis`: uuid of a row of `Chassis` (weak), any number.
    additional_chassis ADDITIONAL_CHASSIS "additional_chassis" set (Uuid);
    /// Column `additional_encap`: uuid of a row of `Encap` (weak), any number.
    additional_encap ADDITIONAL_ENCAP "additional_encap" set (Uuid);
    /// Column `chassis`: uuid of a row of `Chassis` (weak), optional.
    chassis CHASSIS "chassis" optional (Uuid);
    /// Column `datapath`: uuid of a row of `Datapath_Binding` (strong).
    datapath DATAPATH "datapath" one (Uuid);
    /// Column `encap`: uuid of a row of `Encap` (weak), optional.
    encap ENCAP "encap" optional (Uuid);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `gateway_chassis`: uuid of a row of `Gateway_Chassis` (strong), any number.
    gateway_chassis GATEWAY_CHASSIS "gateway_chassis" set (Uuid);
    /// Column `ha_chassis_group`: uuid of a row of `HA_Chassis_Group` (strong), optional.
    ha_chassis_group HA_CHASSIS_GROUP "ha_chassis_group" optional (Uuid);
    /// Column `logical_port`: string.
    logical_port LOGICAL_PORT "logical_port" one (Str);
    /// Column `mac`: string, any number.
    mac MAC "mac" set (Str);
    /// Column `mirror_rules`: uuid of a row of `Mirror` (weak), any number.
    mirror_rules MIRROR_RULES "mirror_rules" set (Uuid);
    /// Column `nat_addresses`: string, any number.
    nat_addresses NAT_ADDRESSES "nat_addresses" set (Str);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `parent_port`: string, optional.
    parent_port PARENT_PORT "parent_port" optional (Str);
    /// Column `port_security`: string, any number.
    port_security PORT_SECURITY "port_security" set (Str);
    /// Column `requested_additional_chassis`: uuid of a row of `Chassis` (weak), any number.
    requested_additional_chassis REQUESTED_ADDITIONAL_CHASSIS "requested_additional_chassis" set (Uuid);
    /// Column `requested_chassis`: uuid of a row of `Chassis` (weak), optional.
    requested_chassis REQUESTED_CHASSIS "requested_chassis" optional (Uuid);
    /// Column `tag`: integer (1..=4095), optional.
    tag TAG "tag" optional (i64);
    /// Column `tunnel_key`: integer (1..=32767).
    tunnel_key TUNNEL_KEY "tunnel_key" one (i64);
    /// Column `type`: string.
    type_ TYPE "type" one (Str);
    /// Column `up`: boolean, optional.
    up UP "up" optional (bool);
    /// Column `virtual_parent`: string, optional.
    virtual_parent VIRTUAL_PARENT "virtual_parent" optional (Str);
}

table! {
    /// Table `Port_Group`, a root: rows stay until they are deleted.
    PortGroup, PortGroupRow, "Port_Group";
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `ports`: string, any number.
    ports PORTS "ports" set (Str);
}

table! {
    /// Table `RBAC_Permission`, a root: rows stay until they are deleted.
    RbacPermission, RbacPermissionRow, "RBAC_Permission";
    /// Column `authorization`: string, any number.
    authorization AUTHORIZATION "authorization" set (Str);
    /// Column `insert_delete`: boolean.
    insert_delete INSERT_DELETE "insert_delete" one (bool);
    /// Column `table`: string.
    table TABLE_COLUMN "table" one (Str);
    /// Column `update`: string, any number.
    update UPDATE "update" set (Str);
}

table! {
    /// Table `RBAC_Role`, a root: rows stay until they are deleted.
    RbacRole, RbacRoleRow, "RBAC_Role";
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `permissions`: map of string to uuid of a row of `RBAC_Permission` (weak).
    permissions PERMISSIONS "permissions" map (Str, Uuid);
}

table! {
    /// Table `SB_Global`, a root: rows stay until they are deleted.
    SbGlobal, SbGlobalRow, "SB_Global";
    /// Column `connections`: uuid of a row of `Connection` (strong), any number.
    connections CONNECTIONS "connections" set (Uuid);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `ipsec`: boolean.
    ipsec IPSEC "ipsec" one (bool);
    /// Column `nb_cfg`: integer.
    nb_cfg NB_CFG "nb_cfg" one (i64);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `ssl`: uuid of a row of `SSL` (strong), optional.
    ssl SSL "ssl" optional (Uuid);
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

enumeration! {
    /// Values of `Service_Monitor` column `protocol`.
    ServiceMonitorProtocol { Tcp = "tcp", Udp = "udp", }
}

enumeration! {
    /// Values of `Service_Monitor` column `status`.
    ServiceMonitorStatus { Online = "online", Offline = "offline", Error = "error", }
}

table! {
    /// Table `Service_Monitor`, a root: rows stay until they are deleted.
    ServiceMonitor, ServiceMonitorRow, "Service_Monitor";
    /// Column `chassis_name`: string.
    chassis_name CHASSIS_NAME "chassis_name" one (Str);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `ip`: string.
    ip IP "ip" one (Str);
    /// Column `logical_port`: string.
    logical_port LOGICAL_PORT "logical_port" one (Str);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `port`: integer (0..=65535).
    port PORT "port" one (i64);
    /// Column `protocol`: string, optional.
    protocol PROTOCOL "protocol" optional (ServiceMonitorProtocol);
    /// Column `src_ip`: string.
    src_ip SRC_IP "src_ip" one (Str);
    /// Column `src_mac`: string.
    src_mac SRC_MAC "src_mac" one (Str);
    /// Column `status`: string, optional.
    status STATUS "status" optional (ServiceMonitorStatus);
}

table! {
    /// Table `Static_MAC_Binding`, a root: rows stay until they are deleted.
    StaticMacBinding, StaticMacBindingRow, "Static_MAC_Binding";
    /// Column `datapath`: uuid of a row of `Datapath_Binding` (strong).
    datapath DATAPATH "datapath" one (Uuid);
    /// Column `ip`: string.
    ip IP "ip" one (Str);
    /// Column `logical_port`: string.
    logical_port LOGICAL_PORT "logical_port" one (Str);
    /// Column `mac`: string.
    mac MAC "mac" one (Str);
    /// Column `override_dynamic_mac`: boolean.
    override_dynamic_mac OVERRIDE_DYNAMIC_MAC "override_dynamic_mac" one (bool);
}
