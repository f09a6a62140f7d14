//! Names of nodes, and the addresses behind them.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The addresses of a host. On clusters whose names only Slurm knows, it is asked.
pub(crate) fn resolve(host: &str, port: u16, asks_slurm: bool) -> Result<Vec<SocketAddr>, String> {
    let by_name = |host: &str| (host, port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
    match by_name(host) {
        Ok(addresses) if !addresses.is_empty() => Ok(addresses),
        _ if asks_slurm => {
            let unknown =
                || format!("neither the system nor `scontrol show node {host}` knows an address of `{host}`");
            let address = node_address(host).ok_or_else(unknown)?;
            by_name(&address).map_err(|error| format!("Slurm's address `{address}` of `{host}`: {error}"))
        }
        Ok(_) => Err(format!("`{host}` has no address")),
        Err(error) => Err(format!("the name `{host}` does not resolve: {error}")),
    }
}

/// What Slurm says is the address of a node.
fn node_address(host: &str) -> Option<String> {
    let mut scontrol = Command::new("scontrol")
        .args(["show", "node", "-o", host])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    // Without its controller it tries for minutes.
    let deadline = Instant::now() + Duration::from_secs(10);
    while matches!(scontrol.try_wait(), Ok(None)) {
        if Instant::now() > deadline {
            let _ = scontrol.kill();
        }
        thread::sleep(Duration::from_millis(20));
    }
    let mut text = String::new();
    scontrol.stdout.take()?.read_to_string(&mut text).ok()?;
    parse_node_address(&text)
}

fn parse_node_address(text: &str) -> Option<String> {
    text.split_whitespace().find_map(|word| word.strip_prefix("NodeAddr=")).map(str::to_owned)
}

/// Addresses under which others may reach this machine: all but loopback, or loopback where there is no other.
pub(crate) fn own_addresses() -> Vec<String> {
    // Each table of the kernel's lists them again.
    let mut addresses =
        std::fs::read_to_string("/proc/net/fib_trie").map_or_else(|_| Vec::new(), |text| parse_trie(&text));
    addresses.sort();
    addresses.dedup();
    addresses.retain(|address| !address.is_loopback());
    if addresses.is_empty() {
        addresses.push(Ipv4Addr::LOCALHOST);
    }
    addresses.into_iter().map(|address| IpAddr::from(address).to_string()).collect()
}

/// The address of a leaf stands on the line before the one that says `host LOCAL`.
fn parse_trie(text: &str) -> Vec<Ipv4Addr> {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let local = lines.windows(2).filter(|two| two[1].ends_with("/32 host LOCAL"));
    local.filter_map(|two| two[0].strip_prefix("|-- ")?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_addresses() {
        let seen = resolve("127.0.0.1", 7, false).expect("that is an address");
        assert_eq!(seen, ["127.0.0.1:7".parse().expect("an address")]);
        let error = resolve("no-such-host.invalid", 7, false).expect_err("that name is reserved");
        assert!(error.contains("`no-such-host.invalid` does not resolve"), "{error}");
        let error = resolve("no-such-host.invalid", 7, true).expect_err("that name is reserved");
        assert!(error.contains("scontrol show node no-such-host.invalid"), "{error}");
    }

    #[test]
    fn what_slurm_and_the_kernel_print_is_read() {
        let node = "NodeName=n1 Arch=x86_64 NodeAddr=10.1.0.4 NodeHostName=n1 Version=22.05.8";
        assert_eq!(parse_node_address(node).as_deref(), Some("10.1.0.4"));
        assert_eq!(parse_node_address("Node n9 not found"), None);
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n           |-- 10.1.0.0\n\
                    /24 link UNICAST\n           |-- 10.1.0.4\n              /32 host LOCAL\n";
        assert_eq!(parse_trie(trie), [Ipv4Addr::new(10, 1, 0, 4)]);
        assert!(!own_addresses().is_empty());
    }
}
