//! A tap device whose owner is the test, as a hypervisor is: a virtual machine that answers who it is asked for.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::run;

/// The device; it goes with this.
pub struct Tap {
    name: String,
    /// Datagrams that came.
    pub datagrams: Arc<AtomicUsize>,
}

impl Tap {
    /// Makes the device. The machine behind it answers ARP requests for `ip` with `mac`, and sends datagrams back.
    pub fn new(name: &str, mac: &str, ip: &str) -> Self {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun");
        let device = device.unwrap();
        attach(&device, name);
        let bytes = mac.split(':').map(|b| u8::from_str_radix(b, 16).unwrap());
        let mac: [u8; 6] = bytes.collect::<Vec<u8>>().try_into().unwrap();
        let ip = ip.parse::<Ipv4Addr>().unwrap().octets();
        let datagrams = Arc::new(AtomicUsize::new(0));
        let counted = datagrams.clone();
        std::thread::spawn(move || answer(device, mac, ip, &counted));
        Self {
            name: name.to_owned(),
            datagrams,
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // The thread's read fails then, and it ends.
        let _ = std::process::Command::new("ip")
            .args(["link", "delete", &self.name])
            .status();
    }
}

fn answer(mut device: File, mac: [u8; 6], ip: [u8; 4], datagrams: &AtomicUsize) {
    let mut buffer = [0; 2048];
    while let Ok(length) = device.read(&mut buffer) {
        let frame = &mut buffer[..length];
        let is_arp = length >= 42
            && frame[12..14] == [8, 6]
            && frame[20..22] == [0, 1]
            && frame[38..42] == ip;
        let is_udp =
            length >= 42 && frame[12..15] == [8, 0, 0x45] && frame[23] == 17 && frame[30..34] == ip;
        if is_arp {
            frame[20..22].copy_from_slice(&[0, 2]);
            frame.copy_within(22..32, 32);
            frame[22..28].copy_from_slice(&mac);
            frame[28..32].copy_from_slice(&ip);
        } else if is_udp {
            datagrams.fetch_add(1, Ordering::Relaxed);
            // Neither checksum changes.
            for at in 26..30 {
                frame.swap(at, at + 4);
            }
            frame.swap(34, 36);
            frame.swap(35, 37);
        } else {
            continue;
        }
        frame.copy_within(6..12, 0);
        frame[6..12].copy_from_slice(&mac);
        if device.write(frame).is_err() {
            return;
        }
    }
}

/// `TUNSETIFF`: a tap, frames without a header before them.
#[allow(unsafe_code)]
fn attach(device: &File, name: &str) {
    use nix::libc;
    // SAFETY: `ifreq` is plain data for which all zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes an `ifreq`, which outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
}

/// Makes a veth pair: one end here, the other as `eth0` in a namespace.
pub fn veth(name: &str, namespace: &str) {
    let peer = ["peer", "name", "eth0", "netns", namespace];
    run(
        "ip",
        &[&["link", "add", name, "type", "veth"], &peer[..]].concat(),
    );
}
