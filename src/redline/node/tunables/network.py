"""Rows about the network. Most matter for clients by the thousand, model pulls and KV transfer, not for one stream."""

from __future__ import annotations

from redline.node.sys import Sys, text
from redline.node.tunables.find import engines, fastest_nic_mbit, nics, number, of_nics, rdma, word
from redline.node.tunables.rows import everywhere, kernel_doc, only_for, sysctl, tuned, want
from redline.node.tunables.tunable import AT_START, Fit, Place, Reason, Source, Tunable, Want

_IP = kernel_doc("networking/ip-sysctl.rst")
_NET = kernel_doc("admin-guide/sysctl/net.rst")
_FAST_MBIT = 25_000
_FULL_FRAME = 1000
_LATENT = "a 25 Gbit/s link with 5 ms of delay holds 16 MB"


def listeners(sys: Sys) -> list[int]:
    """Backlogs that the listeners of this network namespace asked for (already cut to somaxconn)."""
    lines = [line.split() for line in sys.run(["ss", "-Hltn"]).out.splitlines()]
    return [int(parts[2]) for parts in lines if len(parts) > 2 and parts[2].isdigit()]


def _backlog(sys: Sys, place: Place) -> str:
    """Why a larger limit cannot help: an engine elsewhere, or listeners that ask for less."""
    home = sys.link("/proc/self/ns/net")
    away = [
        (pid, name)
        for pid, name in engines(sys)
        if home and (there := sys.link(f"/proc/{pid}/ns/net")) and there != home
    ]
    if away:
        pid, name = away[0]
        return f"{name} (pid {pid}) listens in another network namespace, which has its own value"
    asked, limit = max(listeners(sys), default=0), number(sys, place.path) or 0
    if 0 < asked < limit:
        return f"no listener has a backlog above {asked} (a server takes a raised limit when it is started anew)"
    return ""


def _small_packets(sys: Sys, place: Place) -> str:
    """Proof from the card's own counts that frames are not full."""
    folder = f"/sys/class/net/{place.name}/statistics"
    sizes = {}
    for way in ("rx", "tx"):
        packets = number(sys, f"{folder}/{way}_packets") or 0
        if packets < 1000:
            continue
        sizes[way] = (number(sys, f"{folder}/{way}_bytes") or 0) // packets
    if not sizes or max(sizes.values()) >= _FULL_FRAME:
        return ""
    means = ", ".join(f"{size} bytes {'received' if way == 'rx' else 'sent'}" for way, size in sizes.items())
    return f"packets are small (on average {means}): token streams never fill a frame"


def _slow(sys: Sys, _place: Place) -> str:
    mbit = fastest_nic_mbit(sys)
    if mbit >= _FAST_MBIT:
        return ""
    return f"the fastest card has {mbit / 1000:g} Gbit/s" if mbit > 0 else "no card here tells how fast it is"


def _third(least: int) -> Fit:
    """The first two of three numbers stay; the third becomes at least `least`."""

    def fit(sys: Sys, place: Place, _want: Want) -> Want:
        low, middle, high = (int(each) for each in word(sys, place).split())
        return want("equals", f"{low} {middle} {max(high, least)}")

    return fit


def _wide_range(sys: Sys, place: Place, _want: Want) -> Want:
    low, high = (int(each) for each in word(sys, place).split())
    return want("one of", f"{low} {high}") if high - low >= 50_000 else want("equals", "10240 65535")


def _few_entries(path: str, limit_path: str, what: str) -> Reason:
    def reason(sys: Sys, _place: Place) -> str:
        used, limit = number(sys, path), number(sys, limit_path)
        if used is None or not limit or used * 4 > limit:
            return ""
        return f"{used:,} of {limit:,} {what} in use"

    return reason


def _no_jumbo(sys: Sys, _place: Place) -> str:
    jumbo = any((number(sys, f"/sys/class/net/{name}/mtu") or 0) > 1500 for name in nics(sys))
    return "" if jumbo else "no card sends frames above 1500 bytes"


def _no_neighbours(sys: Sys, _place: Place) -> str:
    known = len((text(sys, "/proc/net/arp") or "").splitlines()) - 1
    return f"neighbours known: {max(known, 0)}; below 128 none is ever dropped" if known < 100 else ""


def _tcp(name: str, title: str, wants: object, *sources: Source, **more: object) -> Tunable:
    return sysctl(f"net.ipv4.{name}", title, wants, *(sources or (_IP,)), group="network", scope="netns", **more)  # type: ignore[arg-type]


def _core(name: str, title: str, wants: object, *sources: Source, **more: object) -> Tunable:
    return sysctl(f"net.core.{name}", title, wants, *(sources or (_NET,)), group="network", **more)  # type: ignore[arg-type]


def _rdma_only(sys: Sys, _place: Place) -> str:
    return "" if rdma(sys) or _slow(sys, _place) == "" else _slow(sys, _place)


NETWORK: tuple[Tunable, ...] = (
    _core(
        "somaxconn",
        "connections that may wait for accept()",
        everywhere("at least", 65535),
        _NET,
        Source("measured", "NovaSky-AI/SkyRL #2163: 109k of 131072 requests refused at backlog 2048", "2026-11"),
        scope="netns",
        effective=_backlog,
        tags=frozenset({AT_START}),
        severity="low",
        effect="Bursts of new connections are not refused, where the server asks for such a backlog, too.",
        signal="listen_overflows",
    ),
    _tcp(
        "tcp_max_syn_backlog",
        "connections that may be half open",
        everywhere("at least", 8192),
        severity="low",
        effect="Bursts of new connections do not fall back to SYN cookies.",
        signal="listen_overflows",
    ),
    _tcp(
        "tcp_syncookies",
        "SYN cookies when that is full",
        everywhere("one of", 1, 2),
        severity="low",
        effect="0 drops connections silently instead.",
    ),
    _tcp(
        "tcp_slow_start_after_idle",
        "connections start slowly again after a pause",
        everywhere("equals", 0),
        severity="low",
        effect="A long prompt on a kept connection goes out at once instead of over several round trips.",
        signal="ttft_ms",
    ),
    _tcp(
        "tcp_notsent_lowat",
        "unsent bytes at which a socket counts as writable",
        only_for("latency", op="at most", values=(131072,)),
        severity="info",
        effect="A slow reader's tokens wait in the server, where they can be dropped, and not in the kernel.",
    ),
    _tcp(
        "tcp_rmem",
        "receive buffers (least, first, most)",
        everywhere("equals", ""),
        _IP,
        Source("vendor", "ESnet fasterdata: host tuning", "2026-11"),
        applies=_slow,
        fit=_third(16 << 20),
        tags=frozenset({AT_START}),
        severity="low",
        effect=f"One model pull from far away fills the link: {_LATENT}.",
        signal="load_s",
    ),
    _tcp(
        "tcp_wmem",
        "send buffers (least, first, most)",
        everywhere("equals", ""),
        _IP,
        Source("vendor", "ESnet fasterdata: host tuning", "2026-11"),
        applies=_slow,
        fit=_third(16 << 20),
        tags=frozenset({AT_START}),
        severity="low",
        effect=f"KV transfer and checkpoints over TCP fill the link: {_LATENT}.",
        signal="load_s",
    ),
    _core(
        "rmem_max",
        "largest receive buffer that a program may ask for",
        everywhere("at least", 16 << 20),
        applies=_slow,
        severity="info",
        effect="Only for programs that set SO_RCVBUF (NCCL sockets, UCX); TCP's own tuning does not look at it.",
    ),
    _core(
        "wmem_max",
        "largest send buffer that a program may ask for",
        everywhere("at least", 16 << 20),
        applies=_slow,
        severity="info",
        effect="Only for programs that set SO_SNDBUF (NCCL sockets, UCX); TCP's own tuning does not look at it.",
    ),
    _core(
        "busy_poll",
        "us that poll() spins for packets",
        everywhere("at most", 0),
        _NET,
        tuned("network-latency (50), which knows no engine that needs the core"),
        severity="low",
        effect="Spinning threads take the cores that the engine needs.",
        signal="run_queue_ms",
    ),
    _core(
        "busy_read",
        "us that read() spins for packets",
        everywhere("at most", 0),
        _NET,
        tuned("network-latency (50), which knows no engine that needs the core"),
        tags=frozenset({AT_START}),
        severity="low",
        effect="Spinning threads take the cores that the engine needs.",
        signal="run_queue_ms",
    ),
    _tcp(
        "ip_local_port_range",
        "ports for outgoing connections",
        everywhere("equals", "10240 65535"),
        fit=_wide_range,
        severity="info",
        effect="Gateways and load generators open more than 28k connections to one address.",
    ),
    _tcp(
        "tcp_tw_reuse",
        "ports in TIME-WAIT are used again",
        everywhere("one of", 1, 2),
        severity="info",
        effect="Load generators without keep-alive do not run out of ports; 2 is for loopback only.",
    ),
    _tcp(
        "tcp_sack",
        "selective acknowledgements",
        everywhere("equals", 1),
        severity="medium",
        effect="Old guides switch them off; then one lost packet sends a whole window again.",
    ),
    _tcp(
        "tcp_window_scaling",
        "windows above 64 KiB",
        everywhere("equals", 1),
        severity="medium",
        effect="Without them no connection is faster than 64 KiB per round trip.",
    ),
    _tcp(
        "tcp_mtu_probing",
        "find a working size when big packets vanish",
        everywhere("one of", 1, 2),
        applies=_no_jumbo,
        severity="low",
        effect="A hop that drops jumbo frames slows a connection down instead of hanging it.",
    ),
    _tcp(
        "neigh.default.gc_thresh3",
        "neighbours that may be known",
        everywhere("at least", 8192),
        effective=_no_neighbours,
        severity="low",
        effect="Kubernetes nodes with thousands of pods do not lose neighbours (`neighbour table overflow`).",
    ),
    sysctl(
        "net.netfilter.nf_conntrack_max",
        "connections that the firewall tracks",
        everywhere("at least", 262144),
        kernel_doc("networking/nf_conntrack-sysctl.rst"),
        group="network",
        scope="netns",
        absent="connection tracking is not loaded",
        effective=_few_entries(
            "/proc/sys/net/netfilter/nf_conntrack_count", "/proc/sys/net/netfilter/nf_conntrack_max", "connections"
        ),
        severity="medium",
        effect="A full table drops new connections without a word to the server.",
        signal="conntrack_drops",
    ),
    Tunable(
        id="net.mtu",
        title="frame size",
        group="network",
        scope="device",
        places=of_nics("mtu"),
        read=word,
        wants=only_for("latency", "throughput", op="at least", values=(9000,)),
        effective=_small_packets,
        applies=_rdma_only,
        absent="no network card",
        persist="nic",
        persist_key="mtu",
        risk=3,
        severity="info",
        effect="Fewer packets for model pulls, NFS and KV transfer; nothing for tokens. A wrong hop swallows packets.",
        signal="load_s",
        sources=(Source("measured", "veth pair 9000 against 1500: every full packet lost", "2026-11"), _IP),
    ),
)
