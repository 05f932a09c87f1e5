//! The few OpenFlow 1.5 messages that the task needs: pure. Source: OpenFlow Switch Specification 1.5.1, section 7, and
//! ovs-fields(7), ovs-actions(7) for the fields and the action that are Open vSwitch's own.

use std::collections::BTreeMap;

use super::flow::{FIRST_INGRESS_TABLE, Flow, Kind};

/// The protocol's version 1.5, which ovn-controller uses too: the bridge cannot lack it.
const VERSION: u8 = 6;

/// Length of a message's header, bytes.
const HEADER: usize = 8;

/// Marks our flows: "ycloud", and the version of what is in them.
const COOKIE: u64 = 0x7963_6c6f_7564_0001;

/// Above OVN's flows in these tables, whose highest priority is 100.
const PRIORITY: u16 = 65535;

/// The bit of reg10 that tells the first passage from the second. OVN keeps flags in that register; bits 25 to 27 are
/// free from 23.03 to 26.03 (`MLF_*` in include/ovn/logical-fields.h).
const PASSING: u32 = 1 << 27;

/// `ct_state`: bits new (0) and trk (5).
const NEW_TRACKED: u32 = 0x21;

mod kind {
    pub const HELLO: u8 = 0;
    pub const ERROR: u8 = 1;
    pub const ECHO_REQUEST: u8 = 2;
    pub const ECHO_REPLY: u8 = 3;
    pub const PACKET_OUT: u8 = 13;
    pub const FLOW_MOD: u8 = 14;
    pub const MULTIPART_REQUEST: u8 = 18;
    pub const MULTIPART_REPLY: u8 = 19;
    pub const BARRIER_REQUEST: u8 = 20;
    pub const BARRIER_REPLY: u8 = 21;
}

/// `OFPMP_FLOW_MONITOR`.
const FLOW_MONITOR: u16 = 16;
/// `OFPFMF_*`: what is there already; what is added, removed, modified. Open vSwitch 3.5 refuses `OFPFMF_NO_ABBREV`.
const MONITOR_FLAGS: u16 = 0x01 | 0x02 | 0x04 | 0x08;
/// `OFPP_CONTROLLER`.
const CONTROLLER: u32 = 0xffff_fffd;
/// Any port, group; all tables.
const ANY: u32 = 0xffff_ffff;
const ALL_TABLES: u8 = 0xff;

/// Headers of fields, OXM and Open vSwitch's NXM: class, field, whether there is a mask, length. They are those that
/// Open vSwitch itself uses when it tells of a flow.
mod field {
    pub const IN_PORT: u32 = 0x8000_0004;
    pub const METADATA: u32 = 0x8000_0408;
    /// Where OVN has the logical port by which a packet comes in (`MFF_LOG_INPORT`).
    pub const REG14: u32 = 0x0001_1c04;
    /// As one of OpenFlow's own registers, whose upper half it is.
    pub const PACKET_REG5_MASKED: u32 = 0x8001_0b10;
    pub const REG10_MASKED: u32 = 0x0001_1508;
    pub const CT_STATE_MASKED: u32 = 0x0001_d308;
}

/// What came is not OpenFlow 1.5, or breaks its rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to read an OpenFlow message of type {kind}, {length} bytes: {problem}")]
pub struct Malformed {
    /// `ofp_header:type`.
    pub kind: u8,
    /// `ofp_header:length`.
    pub length: usize,
    /// What is wrong.
    pub problem: &'static str,
}

/// What happened to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is there now.
    There(Flow),
    /// It went.
    Gone(Flow),
    /// Our own request of this number did what it asked for.
    Own(u32),
}

/// A message from the switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// It wants this sent back.
    Echo(Vec<u8>),
    /// It refuses the request of this number, for these reasons: type and code in numbers.
    Refused {
        /// `ofp_header:xid`.
        request: u32,
        /// `ofp_error_msg:type`.
        kind: u16,
        /// `ofp_error_msg:code`.
        code: u16,
    },
    /// Flows that are in the switch or went, in order. Only those that are exactly ours.
    Flows {
        /// The number of the request that this answers; 0: news.
        request: u32,
        /// Whether the answer goes on.
        more: bool,
        /// What happened.
        changes: Vec<Change>,
    },
    /// All requests before the barrier of this number are done.
    Done(u32),
    /// What need not be looked at.
    Other,
}

/// A message of this type and number.
pub(in crate::agent) fn message(kind: u8, xid: u32, body: &[u8]) -> Vec<u8> {
    let mut message = vec![VERSION, kind];
    // All that are sent are short.
    let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX);
    message.extend(length.to_be_bytes());
    message.extend(xid.to_be_bytes());
    message.extend(body);
    message
}

/// Says that only version 1.5 will do.
pub fn hello() -> Vec<u8> {
    // OFPHET_VERSIONBITMAP, its length, the bitmap.
    let mut body = vec![0, 1, 0, 8];
    body.extend((1_u32 << VERSION).to_be_bytes());
    message(kind::HELLO, 0, &body)
}

/// The answer to [`Message::Echo`].
pub fn echo(body: &[u8]) -> Vec<u8> {
    message(kind::ECHO_REPLY, 0, body)
}

/// Asks to be told once all that was asked before is done.
pub fn barrier(xid: u32) -> Vec<u8> {
    message(kind::BARRIER_REQUEST, xid, &[])
}

/// Asks for all flows of a kind, and to be told of changes. Others have no flows that match that register's bit.
pub fn monitor(xid: u32, kind: Kind) -> Vec<u8> {
    let mut body = FLOW_MONITOR.to_be_bytes().to_vec();
    body.extend([0; 6]);
    body.extend(xid.to_be_bytes());
    body.extend(ANY.to_be_bytes());
    body.extend(ANY.to_be_bytes());
    body.extend(MONITOR_FLAGS.to_be_bytes());
    // OFPFMC_ADD.
    body.extend([ALL_TABLES, 0]);
    body.extend(matching(&[register(kind)]));
    message(kind::MULTIPART_REQUEST, xid, &body)
}

/// Adds a flow, or sets it right.
pub fn add(xid: u32, flow: &Flow) -> Vec<u8> {
    let instructions = match flow.kind {
        Kind::Stop => Vec::new(),
        Kind::Pass => apply(&[
            set_register(PASSING),
            resubmit(flow.table),
            set_register(0),
            resubmit(flow.table + 1),
        ]),
    };
    flow_mod(xid, flow, 0, &instructions)
}

/// Removes a flow: `OFPFC_DELETE_STRICT`.
pub fn remove(xid: u32, flow: &Flow) -> Vec<u8> {
    flow_mod(xid, flow, 4, &[])
}

/// Sends a frame into a logical datapath as if it came by a port of it: these are the tunnel keys of both.
pub(in crate::agent) fn from_port(xid: u32, datapath: u64, port: u32, frame: &[u8]) -> Vec<u8> {
    let actions = [
        set_field(field::METADATA, &datapath.to_be_bytes()),
        set_field(field::REG14, &port.to_be_bytes()),
        resubmit(FIRST_INGRESS_TABLE),
    ]
    .concat();
    // No packet of the switch's own.
    let mut body = ANY.to_be_bytes().to_vec();
    let length = u16::try_from(actions.len()).unwrap_or(u16::MAX);
    body.extend(length.to_be_bytes());
    body.extend([0; 2]);
    body.extend(matching(&[(
        field::IN_PORT,
        CONTROLLER.to_be_bytes().to_vec(),
    )]));
    body.extend(actions);
    body.extend(frame);
    message(kind::PACKET_OUT, xid, &body)
}

fn flow_mod(xid: u32, flow: &Flow, command: u8, instructions: &[u8]) -> Vec<u8> {
    let mut body = COOKIE.to_be_bytes().to_vec();
    // The cookie's mask, which says whose flows a command may touch; adding ignores it.
    let mask = if command == 0 { 0 } else { u64::MAX };
    body.extend(mask.to_be_bytes());
    body.extend([flow.table, command, 0, 0, 0, 0]);
    body.extend(PRIORITY.to_be_bytes());
    // No packet to send; any port, any group; no flags, no importance.
    body.extend([0xff; 12]);
    body.extend([0; 4]);
    body.extend(matching(&fields(flow)));
    body.extend(instructions);
    message(kind::FLOW_MOD, xid, &body)
}

type Field = (u32, Vec<u8>);

fn register(kind: Kind) -> Field {
    let value = match kind {
        Kind::Stop => PASSING,
        Kind::Pass => 0,
    };
    let upper = |half: u32| (u64::from(half) << 32).to_be_bytes();
    let value = [upper(value), upper(PASSING)].concat();
    (field::PACKET_REG5_MASKED, value)
}

fn fields(flow: &Flow) -> Vec<Field> {
    let metadata = (field::METADATA, flow.datapath.to_be_bytes().to_vec());
    let mut fields = vec![metadata, register(flow.kind)];
    if flow.kind == Kind::Pass {
        fields.push((field::CT_STATE_MASKED, pair(NEW_TRACKED, NEW_TRACKED)));
    }
    fields
}

fn pair(value: u32, mask: u32) -> Vec<u8> {
    [value.to_be_bytes(), mask.to_be_bytes()].concat()
}

/// `ofp_match` with its padding.
fn matching(fields: &[Field]) -> Vec<u8> {
    let mut body = Vec::new();
    for (header, value) in fields {
        body.extend(header.to_be_bytes());
        body.extend(value);
    }
    // OFPMT_OXM; the length is without the padding.
    padded(1, &body, false)
}

/// Type, length and body, filled up to a multiple of eight bytes, which the length counts or does not.
pub(in crate::agent) fn padded(kind: u16, body: &[u8], counted: bool) -> Vec<u8> {
    let length = 4 + body.len();
    let whole = length.next_multiple_of(8);
    let told = u16::try_from(if counted { whole } else { length }).unwrap_or(u16::MAX);
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend(told.to_be_bytes());
    bytes.extend(body);
    bytes.resize(whole, 0);
    bytes
}

/// `OFPIT_APPLY_ACTIONS`.
fn apply(actions: &[Vec<u8>]) -> Vec<u8> {
    let body = [vec![0; 4], actions.concat()].concat();
    padded(4, &body, true)
}

/// The one bit.
fn set_register(value: u32) -> Vec<u8> {
    set_field(field::REG10_MASKED, &pair(value, PASSING))
}

/// `OFPAT_SET_FIELD`.
fn set_field(header: u32, value: &[u8]) -> Vec<u8> {
    padded(25, &[&header.to_be_bytes()[..], value].concat(), true)
}

/// `NXAST_RESUBMIT_TABLE`: vendor Nicira, subtype 14, the same port, the table.
fn resubmit(table: u8) -> Vec<u8> {
    padded(
        0xffff,
        &[0, 0, 0x23, 0x20, 0, 14, 0xff, 0xf8, table, 0, 0, 0],
        true,
    )
}

/// Takes the first message off `buffer`; `None` while it is not complete.
///
/// # Errors
/// [`Malformed`]; the connection then is of no use any more.
pub fn next(buffer: &mut Vec<u8>) -> Result<Option<Message>, Malformed> {
    let Some(header) = buffer.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let (version, kind) = (header[0], header[1]);
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let xid = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let malformed = |problem| Malformed {
        kind,
        length,
        problem,
    };
    if length < HEADER {
        return Err(malformed("it is shorter than its header"));
    }
    if buffer.len() < length {
        return Ok(None);
    }
    let message: Vec<u8> = buffer.drain(..length).collect();
    let body = &message[HEADER..];
    if version != VERSION && !matches!(kind, kind::HELLO | kind::ERROR) {
        return Err(malformed("it is not OpenFlow 1.5"));
    }
    let cut = || malformed("it ends too early");
    Ok(Some(match kind {
        kind::ERROR => Message::Refused {
            request: xid,
            kind: u16_at(body, 0).ok_or_else(cut)?,
            code: u16_at(body, 2).ok_or_else(cut)?,
        },
        kind::ECHO_REQUEST => Message::Echo(body.to_vec()),
        kind::BARRIER_REPLY => Message::Done(xid),
        kind::MULTIPART_REPLY if u16_at(body, 0) == Some(FLOW_MONITOR) => Message::Flows {
            request: xid,
            more: u16_at(body, 2).ok_or_else(cut)? & 1 != 0,
            changes: changes(body.get(8..).ok_or_else(cut)?).ok_or_else(cut)?,
        },
        _ => Message::Other,
    }))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_be_bytes(*bytes))
}

/// `ofp_flow_update_header`s one after the other. `None` if they do not fit.
fn changes(mut bytes: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    while !bytes.is_empty() {
        let length = usize::from(u16_at(bytes, 0)?);
        let (update, rest) = bytes.split_at_checked(length).filter(|_| length >= 4)?;
        bytes = rest;
        // OFPFME_INITIAL, _ADDED, _REMOVED, _MODIFIED, _ABBREV; the rest are about the updates themselves.
        let change = match u16_at(update, 2)? {
            0 | 1 | 3 => Change::There,
            2 => Change::Gone,
            4 => {
                let xid = update.get(4..)?.first_chunk::<4>()?;
                changes.push(Change::Own(u32::from_be_bytes(*xid)));
                continue;
            }
            _ => continue,
        };
        let priority = u16_at(update, 10)?;
        let cookie = u64_at(update, 16)?;
        if let Some(flow) = flow(*update.get(4)?, update.get(24..)?)?
            && (priority, cookie) == (PRIORITY, COOKIE)
        {
            changes.push(change(flow));
        }
    }
    Some(changes)
}

/// The flow of ours in this table that has this `ofp_match`; `Some(None)` if none of ours looks so.
fn flow(table: u8, matching: &[u8]) -> Option<Option<Flow>> {
    let mut bytes = matching.get(4..usize::from(u16_at(matching, 2)?))?;
    let mut found = BTreeMap::new();
    while !bytes.is_empty() {
        let header = u32::from_be_bytes(*bytes.first_chunk::<4>()?);
        let (value, rest) = bytes[4..].split_at_checked(usize::from(bytes[3]))?;
        found.insert(header, value.to_vec());
        bytes = rest;
    }
    let datapath = found.get(&field::METADATA).and_then(|v| u64_at(v, 0));
    Some(datapath.and_then(|datapath| {
        let kinds = [Kind::Stop, Kind::Pass].map(|kind| Flow {
            kind,
            table,
            datapath,
        });
        let same = |flow: &Flow| fields(flow).into_iter().collect::<BTreeMap<_, _>>() == found;
        kinds.into_iter().find(same)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: Flow = Flow {
        kind: Kind::Pass,
        table: 22,
        datapath: 3,
    };

    fn bytes(hex: &str) -> Vec<u8> {
        let hex = hex.replace(char::is_whitespace, "");
        let pairs = (0..hex.len()).step_by(2);
        pairs
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    /// What Open vSwitch 3.5 told of a flow that ovs-ofctl(8) had added, less its instructions.
    fn told(event: &str, cookie: &str) -> Vec<u8> {
        let text = format!(
            "0613 0058 00000000 0010 0000 00000000
             0048 {event} 16 00 0000 0000 ffff 00000000 {cookie}
             0001 0030 80010b10 0000000000000000 0800000000000000 0001d308 00000021 00000021 80000408 0000000000000003"
        );
        bytes(&text)
    }

    fn changes_in(mut bytes: Vec<u8>) -> Vec<Change> {
        match next(&mut bytes) {
            Ok(Some(Message::Flows { changes, .. })) => changes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_flow_is_known_again() {
        let ours = "79636c6f75640001";
        assert_eq!(changes_in(told("0000", ours)), [Change::There(FLOW)]);
        assert_eq!(changes_in(told("0001", ours)), [Change::There(FLOW)]);
        assert_eq!(changes_in(told("0002", ours)), [Change::Gone(FLOW)]);
        assert_eq!(changes_in(told("0001", "0000000000000aff")), []);
        assert_eq!(changes_in(told("0005", ours)), [], "paused");
        let own = bytes("0613 0018 00000000 0010 0000 00000000 0008 0004 00000011");
        assert_eq!(changes_in(own), [Change::Own(0x11)]);
    }

    #[test]
    fn a_flow_s_message_is_as_the_specification_has_it() {
        let flow_mod = |xid: &str, cookie_mask: &str, command: &str| {
            format!(
                "0000{xid} 79636c6f75640001 {cookie_mask} 16 {command} 0000 0000 ffff ffffffff ffffffff ffffffff 0000 0000
                 0001 0030 80000408 0000000000000003 80010b10 0000000000000000 0800000000000000 0001d308 00000021 00000021"
            )
        };
        let pass = "0004 0048 00000000
             0019 0010 00011508 08000000 08000000 ffff 0010 00002320 000e fff8 16 000000
             0019 0010 00011508 00000000 08000000 ffff 0010 00002320 000e fff8 17 000000";
        let wanted = format!(
            "060e 00a8 {} {pass}",
            flow_mod("0011", "0000000000000000", "00")
        );
        assert_eq!(add(0x11, &FLOW), bytes(&wanted));
        let wanted = format!("060e 0060 {}", flow_mod("0012", "ffffffffffffffff", "04"));
        assert_eq!(remove(0x12, &FLOW), bytes(&wanted));
    }

    #[test]
    fn a_frame_s_message_is_as_the_specification_has_it() {
        let wanted = "060d 0054 00000013 ffffffff 0030 0000 0001 000c 80000004 fffffffd 00000000
             0019 0010 80000408 0000000000000007 0019 0010 00011c04 00000002 00000000
             ffff 0010 00002320 000e fff8 08 000000 abcdef01";
        assert_eq!(from_port(0x13, 7, 2, &[0xab, 0xcd, 0xef, 1]), bytes(wanted));
    }

    #[test]
    fn messages_are_taken_one_by_one_and_only_whole() {
        let stream = bytes(
            "0600 0008 00000001 0602 000a 00000002 abcd 0615 0008 00000003 0601 000c 00000004 0001 0007 06",
        );
        let mut buffer = Vec::new();
        let mut messages = Vec::new();
        for byte in stream {
            buffer.push(byte);
            messages.extend(next(&mut buffer).unwrap());
        }
        let refused = Message::Refused {
            request: 4,
            kind: 1,
            code: 7,
        };
        let echo = Message::Echo(vec![0xab, 0xcd]);
        assert_eq!(messages, [Message::Other, echo, Message::Done(3), refused]);
        assert_eq!(buffer, [6]);
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        let cases = [
            ("0602 0007 00000000", "it is shorter than its header"),
            ("0115 0008 00000000", "it is not OpenFlow 1.5"),
            ("0601 000a 00000000 0001", "it ends too early"),
            ("0613 000a 00000000 0010", "it ends too early"),
            (
                "0613 0014 00000000 0010 0000 00000000 0050 0001",
                "it ends too early",
            ),
            (
                "0613 0014 00000000 0010 0000 00000000 0000 0001",
                "it ends too early",
            ),
            (
                "0613 0014 00000000 0010 0000 00000000 0004 0001",
                "it ends too early",
            ),
        ];
        for (text, problem) in cases {
            let error = next(&mut bytes(text)).unwrap_err();
            assert_eq!(error.problem, problem, "{text}");
        }
        // A match that is longer than it may be, and a field that is longer than the match.
        let mut cut = told("0001", "79636c6f75640001");
        cut[42] = 0xff;
        assert!(next(&mut cut).is_err());
        let mut cut = told("0001", "79636c6f75640001");
        cut[47] = 0xff;
        assert!(next(&mut cut).is_err());
    }
}
