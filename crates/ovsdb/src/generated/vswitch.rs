//! Tables of database `Open_vSwitch`, ovs-vswitchd.conf.db(5), schema version 8.8.0.
//!
//! Generated from `schemas/vswitch.ovsschema` by `cargo xtask generate-ovsdb`; do not edit.

use std::sync::{Arc, LazyLock};

use uuid::Uuid;

use crate::schema::Schema;
use crate::typed::{Str, enumeration, table};

/// Name of the database.
pub const DATABASE: &str = "Open_vSwitch";

/// The vendored schema. The connected server's own may have more or less.
pub fn schema() -> &'static Arc<Schema> {
    static SCHEMA: LazyLock<Arc<Schema>> =
        LazyLock::new(|| Schema::vendored(include_str!("../../schemas/vswitch.ovsschema")));
    &SCHEMA
}

table! {
    /// Table `AutoAttach`, no root: a row goes when its last strong reference goes.
    AutoAttach, AutoAttachRow, "AutoAttach";
    /// Column `mappings`: map of integer (0..=16777215) to integer (0..=4095).
    mappings MAPPINGS "mappings" map (i64, i64);
    /// Column `system_description`: string.
    system_description SYSTEM_DESCRIPTION "system_description" one (Str);
    /// Column `system_name`: string.
    system_name SYSTEM_NAME "system_name" one (Str);
}

enumeration! {
    /// Values of `Bridge` column `fail_mode`.
    BridgeFailMode { Standalone = "standalone", Secure = "secure", }
}

enumeration! {
    /// Values of `Bridge` column `protocols`.
    BridgeProtocols {
        OpenFlow10 = "OpenFlow10",
        OpenFlow11 = "OpenFlow11",
        OpenFlow12 = "OpenFlow12",
        OpenFlow13 = "OpenFlow13",
        OpenFlow14 = "OpenFlow14",
        OpenFlow15 = "OpenFlow15",
    }
}

table! {
    /// Table `Bridge`, no root: a row goes when its last strong reference goes.
    Bridge, BridgeRow, "Bridge";
    /// Column `auto_attach`: uuid of a row of `AutoAttach` (strong), optional.
    auto_attach AUTO_ATTACH "auto_attach" optional (Uuid);
    /// Column `controller`: uuid of a row of `Controller` (strong), any number.
    controller CONTROLLER "controller" set (Uuid);
    /// Column `datapath_id`: string, optional.
    datapath_id DATAPATH_ID "datapath_id" optional (Str);
    /// Column `datapath_type`: string.
    datapath_type DATAPATH_TYPE "datapath_type" one (Str);
    /// Column `datapath_version`: string.
    datapath_version DATAPATH_VERSION "datapath_version" one (Str);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `fail_mode`: string, optional.
    fail_mode FAIL_MODE "fail_mode" optional (BridgeFailMode);
    /// Column `flood_vlans`: integer (0..=4095), 0 to 4096.
    flood_vlans FLOOD_VLANS "flood_vlans" set (i64);
    /// Column `flow_tables`: map of integer (0..=254) to uuid of a row of `Flow_Table` (strong).
    flow_tables FLOW_TABLES "flow_tables" map (i64, Uuid);
    /// Column `ipfix`: uuid of a row of `IPFIX` (strong), optional.
    ipfix IPFIX "ipfix" optional (Uuid);
    /// Column `mcast_snooping_enable`: boolean.
    mcast_snooping_enable MCAST_SNOOPING_ENABLE "mcast_snooping_enable" one (bool);
    /// Column `mirrors`: uuid of a row of `Mirror` (strong), any number.
    mirrors MIRRORS "mirrors" set (Uuid);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `netflow`: uuid of a row of `NetFlow` (strong), optional.
    netflow NETFLOW "netflow" optional (Uuid);
    /// Column `other_config`: map of string to string.
    other_config OTHER_CONFIG "other_config" map (Str, Str);
    /// Column `ports`: uuid of a row of `Port` (strong), any number.
    ports PORTS "ports" set (Uuid);
    /// Column `protocols`: string, any number.
    protocols PROTOCOLS "protocols" set (BridgeProtocols);
    /// Column `rstp_enable`: boolean.
    rstp_enable RSTP_ENABLE "rstp_enable" one (bool);
    /// Column `rstp_status`: map of string to string.
    rstp_status RSTP_STATUS "rstp_status" map (Str, Str);
    /// Column `sflow`: uuid of a row of `sFlow` (strong), optional.
    sflow SFLOW "sflow" optional (Uuid);
    /// Column `status`: map of string to string.
    status STATUS "status" map (Str, Str);
    /// Column `stp_enable`: boolean.
    stp_enable STP_ENABLE "stp_enable" one (bool);
}

enumeration! {
    /// Values of `CT_Timeout_Policy` column `timeouts`.
    CtTimeoutPolicyTimeouts {
        TcpSynSent = "tcp_syn_sent",
        TcpSynRecv = "tcp_syn_recv",
        TcpEstablished = "tcp_established",
        TcpFinWait = "tcp_fin_wait",
        TcpCloseWait = "tcp_close_wait",
        TcpLastAck = "tcp_last_ack",
        TcpTimeWait = "tcp_time_wait",
        TcpClose = "tcp_close",
        TcpSynSent2 = "tcp_syn_sent2",
        TcpRetransmit = "tcp_retransmit",
        TcpUnack = "tcp_unack",
        UdpFirst = "udp_first",
        UdpSingle = "udp_single",
        UdpMultiple = "udp_multiple",
        IcmpFirst = "icmp_first",
        IcmpReply = "icmp_reply",
    }
}

table! {
    /// Table `CT_Timeout_Policy`, no root: a row goes when its last strong reference goes.
    CtTimeoutPolicy, CtTimeoutPolicyRow, "CT_Timeout_Policy";
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `timeouts`: map of string to integer (0..=4294967295).
    timeouts TIMEOUTS "timeouts" map (CtTimeoutPolicyTimeouts, i64);
}

table! {
    /// Table `CT_Zone`, no root: a row goes when its last strong reference goes.
    CtZone, CtZoneRow, "CT_Zone";
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `limit`: integer (0..=4294967295), optional.
    limit LIMIT "limit" optional (i64);
    /// Column `timeout_policy`: uuid of a row of `CT_Timeout_Policy` (strong), optional.
    timeout_policy TIMEOUT_POLICY "timeout_policy" optional (Uuid);
}

enumeration! {
    /// Values of `Controller` column `connection_mode`.
    ControllerConnectionMode { InBand = "in-band", OutOfBand = "out-of-band", }
}

enumeration! {
    /// Values of `Controller` column `role`.
    ControllerRole { Other = "other", Master = "master", Slave = "slave", }
}

enumeration! {
    /// Values of `Controller` column `type`.
    ControllerType { Primary = "primary", Service = "service", }
}

table! {
    /// Table `Controller`, no root: a row goes when its last strong reference goes.
    Controller, ControllerRow, "Controller";
    /// Column `connection_mode`: string, optional.
    connection_mode CONNECTION_MODE "connection_mode" optional (ControllerConnectionMode);
    /// Column `controller_burst_limit`: integer (25..), optional.
    controller_burst_limit CONTROLLER_BURST_LIMIT "controller_burst_limit" optional (i64);
    /// Column `controller_queue_size`: integer (1..=512), optional.
    controller_queue_size CONTROLLER_QUEUE_SIZE "controller_queue_size" optional (i64);
    /// Column `controller_rate_limit`: integer (100..), optional.
    controller_rate_limit CONTROLLER_RATE_LIMIT "controller_rate_limit" optional (i64);
    /// Column `enable_async_messages`: boolean, optional.
    enable_async_messages ENABLE_ASYNC_MESSAGES "enable_async_messages" optional (bool);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `inactivity_probe`: integer, optional.
    inactivity_probe INACTIVITY_PROBE "inactivity_probe" optional (i64);
    /// Column `is_connected`: boolean.
    is_connected IS_CONNECTED "is_connected" one (bool);
    /// Column `local_gateway`: string, optional.
    local_gateway LOCAL_GATEWAY "local_gateway" optional (Str);
    /// Column `local_ip`: string, optional.
    local_ip LOCAL_IP "local_ip" optional (Str);
    /// Column `local_netmask`: string, optional.
    local_netmask LOCAL_NETMASK "local_netmask" optional (Str);
    /// Column `max_backoff`: integer (1000..), optional.
    max_backoff MAX_BACKOFF "max_backoff" optional (i64);
    /// Column `other_config`: map of string to string.
    other_config OTHER_CONFIG "other_config" map (Str, Str);
    /// Column `role`: string, optional.
    role ROLE "role" optional (ControllerRole);
    /// Column `status`: map of string to string.
    status STATUS "status" map (Str, Str);
    /// Column `target`: string.
    target TARGET "target" one (Str);
    /// Column `type`: string, optional.
    type_ TYPE "type" optional (ControllerType);
}

table! {
    /// Table `Datapath`, no root: a row goes when its last strong reference goes.
    Datapath, DatapathRow, "Datapath";
    /// Column `capabilities`: map of string to string.
    capabilities CAPABILITIES "capabilities" map (Str, Str);
    /// Column `ct_zone_default_limit`: integer (0..=4294967295), optional.
    ct_zone_default_limit CT_ZONE_DEFAULT_LIMIT "ct_zone_default_limit" optional (i64);
    /// Column `ct_zones`: map of integer (0..=65535) to uuid of a row of `CT_Zone` (strong).
    ct_zones CT_ZONES "ct_zones" map (i64, Uuid);
    /// Column `datapath_version`: string.
    datapath_version DATAPATH_VERSION "datapath_version" one (Str);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
}

table! {
    /// Table `Flow_Sample_Collector_Set`, a root: rows stay until they are deleted.
    FlowSampleCollectorSet, FlowSampleCollectorSetRow, "Flow_Sample_Collector_Set";
    /// Column `bridge`: uuid of a row of `Bridge` (strong).
    bridge BRIDGE "bridge" one (Uuid);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `id`: integer (0..=4294967295).
    id ID "id" one (i64);
    /// Column `ipfix`: uuid of a row of `IPFIX` (strong), optional.
    ipfix IPFIX "ipfix" optional (Uuid);
    /// Column `local_group_id`: integer (0..=4294967295), optional.
    local_group_id LOCAL_GROUP_ID "local_group_id" optional (i64);
}

enumeration! {
    /// Values of `Flow_Table` column `overflow_policy`.
    FlowTableOverflowPolicy { Refuse = "refuse", Evict = "evict", }
}

table! {
    /// Table `Flow_Table`, no root: a row goes when its last strong reference goes.
    FlowTable, FlowTableRow, "Flow_Table";
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `flow_limit`: integer (0..), optional.
    flow_limit FLOW_LIMIT "flow_limit" optional (i64);
    /// Column `groups`: string, any number.
    groups GROUPS "groups" set (Str);
    /// Column `name`: string, optional.
    name NAME "name" optional (Str);
    /// Column `overflow_policy`: string, optional.
    overflow_policy OVERFLOW_POLICY "overflow_policy" optional (FlowTableOverflowPolicy);
    /// Column `prefixes`: string, 0 to 4.
    prefixes PREFIXES "prefixes" set (Str);
}

table! {
    /// Table `IPFIX`, no root: a row goes when its last strong reference goes.
    Ipfix, IpfixRow, "IPFIX";
    /// Column `cache_active_timeout`: integer (0..=4200), optional.
    cache_active_timeout CACHE_ACTIVE_TIMEOUT "cache_active_timeout" optional (i64);
    /// Column `cache_max_flows`: integer (0..=4294967295), optional.
    cache_max_flows CACHE_MAX_FLOWS "cache_max_flows" optional (i64);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `obs_domain_id`: integer (0..=4294967295), optional.
    obs_domain_id OBS_DOMAIN_ID "obs_domain_id" optional (i64);
    /// Column `obs_point_id`: integer (0..=4294967295), optional.
    obs_point_id OBS_POINT_ID "obs_point_id" optional (i64);
    /// Column `other_config`: map of string to string.
    other_config OTHER_CONFIG "other_config" map (Str, Str);
    /// Column `sampling`: integer (1..=4294967295), optional.
    sampling SAMPLING "sampling" optional (i64);
    /// Column `stats_interval`: integer (1..=3600), optional.
    stats_interval STATS_INTERVAL "stats_interval" optional (i64);
    /// Column `targets`: string, any number.
    targets TARGETS "targets" set (Str);
    /// Column `template_interval`: integer (1..=3600), optional.
    template_interval TEMPLATE_INTERVAL "template_interval" optional (i64);
}

enumeration! {
    /// Values of `Interface` column `admin_state`.
    InterfaceAdminState { Up = "up", Down = "down", }
}

enumeration! {
    /// Values of `Interface` column `cfm_remote_opstate`.
    InterfaceCfmRemoteOpstate { Up = "up", Down = "down", }
}

enumeration! {
    /// Values of `Interface` column `duplex`.
    InterfaceDuplex { Half = "half", Full = "full", }
}

enumeration! {
    /// Values of `Interface` column `link_state`.
    InterfaceLinkState { Up = "up", Down = "down", }
}

table! {
    /// Table `Interface`, no root: a row goes when its last strong reference goes.
    Interface, InterfaceRow, "Interface";
    /// Column `admin_state`: string, optional.
    admin_state ADMIN_STATE "admin_state" optional (InterfaceAdminState);
    /// Column `bfd`: map of string to string.
    bfd BFD "bfd" map (Str, Str);
    /// Column `bfd_status`: map of string to string.
    bfd_status BFD_STATUS "bfd_status" map (Str, Str);
    /// Column `cfm_fault`: boolean, optional.
    cfm_fault CFM_FAULT "cfm_fault" optional (bool);
    /// Column `cfm_fault_status`: string, any number.
    cfm_fault_status CFM_FAULT_STATUS "cfm_fault_status" set (Str);
    /// Column `cfm_flap_count`: integer, optional.
    cfm_flap_count CFM_FLAP_COUNT "cfm_flap_count" optional (i64);
    /// Column `cfm_health`: integer (0..=100), optional.
    cfm_health CFM_HEALTH "cfm_health" optional (i64);
    /// Column `cfm_mpid`: integer, optional.
    cfm_mpid CFM_MPID "cfm_mpid" optional (i64);
    /// Column `cfm_remote_mpids`: integer, any number.
    cfm_remote_mpids CFM_REMOTE_MPIDS "cfm_remote_mpids" set (i64);
    /// Column `cfm_remote_opstate`: string, optional.
    cfm_remote_opstate CFM_REMOTE_OPSTATE "cfm_remote_opstate" optional (InterfaceCfmRemoteOpstate);
    /// Column `duplex`: string, optional.
    duplex DUPLEX "duplex" optional (InterfaceDuplex);
    /// Column `error`: string, optional.
    error ERROR "error" optional (Str);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `ifindex`: integer (0..=4294967295), optional.
    ifindex IFINDEX "ifindex" optional (i64);
    /// Column `ingress_policing_burst`: integer (0..).
    ingress_policing_burst INGRESS_POLICING_BURST "ingress_policing_burst" one (i64);
    /// Column `ingress_policing_kpkts_burst`: integer (0..).
    ingress_policing_kpkts_burst INGRESS_POLICING_KPKTS_BURST "ingress_policing_kpkts_burst" one (i64);
    /// Column `ingress_policing_kpkts_rate`: integer (0..).
    ingress_policing_kpkts_rate INGRESS_POLICING_KPKTS_RATE "ingress_policing_kpkts_rate" one (i64);
    /// Column `ingress_policing_rate`: integer (0..).
    ingress_policing_rate INGRESS_POLICING_RATE "ingress_policing_rate" one (i64);
    /// Column `lacp_current`: boolean, optional.
    lacp_current LACP_CURRENT "lacp_current" optional (bool);
    /// Column `link_resets`: integer, optional.
    link_resets LINK_RESETS "link_resets" optional (i64);
    /// Column `link_speed`: integer, optional.
    link_speed LINK_SPEED "link_speed" optional (i64);
    /// Column `link_state`: string, optional.
    link_state LINK_STATE "link_state" optional (InterfaceLinkState);
    /// Column `lldp`: map of string to string.
    lldp LLDP "lldp" map (Str, Str);
    /// Column `mac`: string, optional.
    mac MAC "mac" optional (Str);
    /// Column `mac_in_use`: string, optional.
    mac_in_use MAC_IN_USE "mac_in_use" optional (Str);
    /// Column `mtu`: integer, optional.
    mtu MTU "mtu" optional (i64);
    /// Column `mtu_request`: integer (1..), optional.
    mtu_request MTU_REQUEST "mtu_request" optional (i64);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `ofport`: integer, optional.
    ofport OFPORT "ofport" optional (i64);
    /// Column `ofport_request`: integer (1..=65279), optional.
    ofport_request OFPORT_REQUEST "ofport_request" optional (i64);
    /// Column `options`: map of string to string.
    options OPTIONS "options" map (Str, Str);
    /// Column `other_config`: map of string to string.
    other_config OTHER_CONFIG "other_config" map (Str, Str);
    /// Column `statistics`: map of string to integer.
    statistics STATISTICS "statistics" map (Str, i64);
    /// Column `status`: map of string to string.
    status STATUS "status" map (Str, Str);
    /// Column `type`: string.
    type_ TYPE "type" one (Str);
}

enumeration! {
    /// Values of `Manager` column `connection_mode`.
    ManagerConnectionMode { InBand = "in-band", OutOfBand = "out-of-band", }
}

table! {
    /// Table `Manager`, no root: a row goes when its last strong reference goes.
    Manager, ManagerRow, "Manager";
    /// Column `connection_mode`: string, optional.
    connection_mode CONNECTION_MODE "connection_mode" optional (ManagerConnectionMode);
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
    /// Table `Mirror`, no root: a row goes when its last strong reference goes.
    Mirror, MirrorRow, "Mirror";
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `filter`: string, optional.
    filter FILTER "filter" optional (Str);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `output_port`: uuid of a row of `Port` (weak), optional.
    output_port OUTPUT_PORT "output_port" optional (Uuid);
    /// Column `output_vlan`: integer (1..=4095), optional.
    output_vlan OUTPUT_VLAN "output_vlan" optional (i64);
    /// Column `select_all`: boolean.
    select_all SELECT_ALL "select_all" one (bool);
    /// Column `select_dst_port`: uuid of a row of `Port` (weak), any number.
    select_dst_port SELECT_DST_PORT "select_dst_port" set (Uuid);
    /// Column `select_src_port`: uuid of a row of `Port` (weak), any number.
    select_src_port SELECT_SRC_PORT "select_src_port" set (Uuid);
    /// Column `select_vlan`: integer (0..=4095), 0 to 4096.
    select_vlan SELECT_VLAN "select_vlan" set (i64);
    /// Column `snaplen`: integer (14..=65535), optional.
    snaplen SNAPLEN "snaplen" optional (i64);
    /// Column `statistics`: map of string to integer.
    statistics STATISTICS "statistics" map (Str, i64);
}

table! {
    /// Table `NetFlow`, no root: a row goes when its last strong reference goes.
    NetFlow, NetFlowRow, "NetFlow";
    /// Column `active_timeout`: integer (-1..).
    active_timeout ACTIVE_TIMEOUT "active_timeout" one (i64);
    /// Column `add_id_to_interface`: boolean.
    add_id_to_interface ADD_ID_TO_INTERFACE "add_id_to_interface" one (bool);
    /// Column `engine_id`: integer (0..=255), optional.
    engine_id ENGINE_ID "engine_id" optional (i64);
    /// Column `engine_type`: integer (0..=255), optional.
    engine_type ENGINE_TYPE "engine_type" optional (i64);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `targets`: string, at least 1.
    targets TARGETS "targets" set (Str);
}

table! {
    /// Table `Open_vSwitch`, a root: rows stay until they are deleted.
    OpenVSwitch, OpenVSwitchRow, "Open_vSwitch";
    /// Column `bridges`: uuid of a row of `Bridge` (strong), any number.
    bridges BRIDGES "bridges" set (Uuid);
    /// Column `cur_cfg`: integer.
    cur_cfg CUR_CFG "cur_cfg" one (i64);
    /// Column `datapath_types`: string, any number.
    datapath_types DATAPATH_TYPES "datapath_types" set (Str);
    /// Column `datapaths`: map of string to uuid of a row of `Datapath` (strong).
    datapaths DATAPATHS "datapaths" map (Str, Uuid);
    /// Column `db_version`: string, optional.
    db_version DB_VERSION "db_version" optional (Str);
    /// Column `dpdk_initialized`: boolean.
    dpdk_initialized DPDK_INITIALIZED "dpdk_initialized" one (bool);
    /// Column `dpdk_version`: string, optional.
    dpdk_version DPDK_VERSION "dpdk_version" optional (Str);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `iface_types`: string, any number.
    iface_types IFACE_TYPES "iface_types" set (Str);
    /// Column `manager_options`: uuid of a row of `Manager` (strong), any number.
    manager_options MANAGER_OPTIONS "manager_options" set (Uuid);
    /// Column `next_cfg`: integer.
    next_cfg NEXT_CFG "next_cfg" one (i64);
    /// Column `other_config`: map of string to string.
    other_config OTHER_CONFIG "other_config" map (Str, Str);
    /// Column `ovs_version`: string, optional.
    ovs_version OVS_VERSION "ovs_version" optional (Str);
    /// Column `ssl`: uuid of a row of `SSL` (strong), optional.
    ssl SSL "ssl" optional (Uuid);
    /// Column `statistics`: map of string to string.
    statistics STATISTICS "statistics" map (Str, Str);
    /// Column `system_type`: string, optional.
    system_type SYSTEM_TYPE "system_type" optional (Str);
    /// Column `system_version`: string, optional.
    system_version SYSTEM_VERSION "system_version" optional (Str);
}

enumeration! {
    /// Values of `Port` column `bond_mode`.
    PortBondMode {
        BalanceTcp = "balance-tcp",
        BalanceSlb = "balance-slb",
        ActiveBackup = "active-backup",
    }
}

enumeration! {
    /// Values of `Port` column `lacp`.
    PortLacp { Active = "active", Passive = "passive", Off = "off", }
}

enumeration! {
    /// Values of `Port` column `vlan_mode`.
    PortVlanMode {
        Trunk = "trunk",
        Access = "access",
        NativeTagged = "native-tagged",
        NativeUntagged = "native-untagged",
        Dot1qTunnel = "dot1q-tunnel",
    }
}

table! {
    /// Table `Port`, no root: a row goes when its last strong reference goes.
    Port, PortRow, "Port";
    /// Column `bond_active_slave`: string, optional.
    bond_active_slave BOND_ACTIVE_SLAVE "bond_active_slave" optional (Str);
    /// Column `bond_downdelay`: integer.
    bond_downdelay BOND_DOWNDELAY "bond_downdelay" one (i64);
    /// Column `bond_fake_iface`: boolean.
    bond_fake_iface BOND_FAKE_IFACE "bond_fake_iface" one (bool);
    /// Column `bond_mode`: string, optional.
    bond_mode BOND_MODE "bond_mode" optional (PortBondMode);
    /// Column `bond_updelay`: integer.
    bond_updelay BOND_UPDELAY "bond_updelay" one (i64);
    /// Column `cvlans`: integer (0..=4095), 0 to 4096.
    cvlans CVLANS "cvlans" set (i64);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `fake_bridge`: boolean.
    fake_bridge FAKE_BRIDGE "fake_bridge" one (bool);
    /// Column `interfaces`: uuid of a row of `Interface` (strong), at least 1.
    interfaces INTERFACES "interfaces" set (Uuid);
    /// Column `lacp`: string, optional.
    lacp LACP "lacp" optional (PortLacp);
    /// Column `mac`: string, optional.
    mac MAC "mac" optional (Str);
    /// Column `name`: string.
    name NAME "name" one (Str);
    /// Column `other_config`: map of string to string.
    other_config OTHER_CONFIG "other_config" map (Str, Str);
    /// Column `protected`: boolean.
    protected PROTECTED "protected" one (bool);
    /// Column `qos`: uuid of a row of `QoS` (strong), optional.
    qos QOS "qos" optional (Uuid);
    /// Column `rstp_statistics`: map of string to integer.
    rstp_statistics RSTP_STATISTICS "rstp_statistics" map (Str, i64);
    /// Column `rstp_status`: map of string to string.
    rstp_status RSTP_STATUS "rstp_status" map (Str, Str);
    /// Column `statistics`: map of string to integer.
    statistics STATISTICS "statistics" map (Str, i64);
    /// Column `status`: map of string to string.
    status STATUS "status" map (Str, Str);
    /// Column `tag`: integer (0..=4095), optional.
    tag TAG "tag" optional (i64);
    /// Column `trunks`: integer (0..=4095), 0 to 4096.
    trunks TRUNKS "trunks" set (i64);
    /// Column `vlan_mode`: string, optional.
    vlan_mode VLAN_MODE "vlan_mode" optional (PortVlanMode);
}

table! {
    /// Table `QoS`, a root: rows stay until they are deleted.
    QoS, QoSRow, "QoS";
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `other_config`: map of string to string.
    other_config OTHER_CONFIG "other_config" map (Str, Str);
    /// Column `queues`: map of integer (0..=4294967295) to uuid of a row of `Queue` (strong).
    queues QUEUES "queues" map (i64, Uuid);
    /// Column `type`: string.
    type_ TYPE "type" one (Str);
}

table! {
    /// Table `Queue`, a root: rows stay until they are deleted.
    Queue, QueueRow, "Queue";
    /// Column `dscp`: integer (0..=63), optional.
    dscp DSCP "dscp" optional (i64);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `other_config`: map of string to string.
    other_config OTHER_CONFIG "other_config" map (Str, Str);
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
}

table! {
    /// Table `sFlow`, no root: a row goes when its last strong reference goes.
    SFlow, SFlowRow, "sFlow";
    /// Column `agent`: string, optional.
    agent AGENT "agent" optional (Str);
    /// Column `external_ids`: map of string to string.
    external_ids EXTERNAL_IDS "external_ids" map (Str, Str);
    /// Column `header`: integer, optional.
    header HEADER "header" optional (i64);
    /// Column `polling`: integer, optional.
    polling POLLING "polling" optional (i64);
    /// Column `sampling`: integer, optional.
    sampling SAMPLING "sampling" optional (i64);
    /// Column `targets`: string, at least 1.
    targets TARGETS "targets" set (Str);
}
