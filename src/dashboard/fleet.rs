//! The shards and the instances, as tables.

use std::time::Duration;

use maud::{Markup, html};

use super::fleet_snapshot::{FleetSnapshot, Shard};
use super::page::bar;
use crate::clock::unix_millis;
use crate::fleet::Instance;
use crate::number;
use crate::store::Role;

pub fn shards(snapshot: &FleetSnapshot) -> Markup {
    html! {
        table.cards #shards {
            caption.hidden { "Shards, their state and memory" }
            thead {
                tr {
                    th scope="col" { "Shard" }
                    th scope="col" { "State" }
                    th scope="col" { "Role" }
                    th.number scope="col" { "Memory" }
                    th.number scope="col" { "Keys" }
                    th.number scope="col" { "Share of the ring" }
                    @if snapshot.max_staleness.is_some() { th.number scope="col" { "Watermark age" } }
                }
            }
            tbody {
                @for shard in &snapshot.shards { (shard_row(shard, snapshot.max_staleness)) }
            }
        }
    }
}

fn shard_row(shard: &Shard, max_staleness: Option<Duration>) -> Markup {
    let unknown = || number::UNKNOWN.to_owned();
    let state = match shard.is_connected {
        Some(true) => "connected",
        Some(false) if shard.is_refused => "refused",
        Some(false) => "disconnected",
        None => "unknown",
    };
    let role = match shard.role {
        Some(Role::Primary) => "primary",
        Some(Role::Replica) => "replica",
        None => number::UNKNOWN,
    };
    html! {
        tr data-shard=(shard.name) data-state=(state) data-key=(shard.name) {
            th scope="row" {
                (shard.name)
                @if let Some(address) = &shard.address { " " span.muted { code { (address) } } }
            }
            td data-label="State" { span.state data-state=(state) { (state) } }
            td data-label="Role" { (role) }
            td.number data-label="Memory" data-value=[shard.used_bytes] {
                (shard.used_bytes.map_or_else(unknown, number::bytes))
                @if let (Some(used), Some(limit)) = (shard.used_bytes, shard.limit_bytes.filter(|limit| *limit > 0)) {
                    span.muted { " of " (number::bytes(limit)) }
                    (bar(used, limit))
                }
            }
            td.number data-label="Keys" data-value=[shard.keys] { (shard.keys.map_or_else(unknown, number::count)) }
            td.number data-label="Share of the ring" { (shard.ring_share.map_or_else(unknown, number::percent)) }
            @if let Some(most) = max_staleness {
                @let is_late = shard.watermark_age.is_none_or(|age| age > most);
                td.number data-label="Watermark age" data-late=[is_late.then_some("")] {
                    (shard.watermark_age.map_or_else(unknown, number::latency))
                }
            }
        }
    }
}

pub fn instances(snapshot: &FleetSnapshot) -> Markup {
    html! {
        table.cards #instances {
            caption.hidden { "Instances, their load and their memory" }
            thead {
                tr {
                    th scope="col" { "Address" }
                    th scope="col" { "Version" }
                    th.number scope="col" { "Up for" }
                    th.number scope="col" { "Last seen" }
                    th.number scope="col" { "Operations" }
                    th.number scope="col" { "p99" }
                    th.number scope="col" { "L1 entries" }
                    th.number scope="col" { "L1 memory" }
                    th.number scope="col" { "L1 hits" }
                    th scope="col" { "Ring" }
                }
            }
            tbody {
                @match &snapshot.instances {
                    None => { tr { td.none colspan="10" { "The shards did not answer in time." } } }
                    Some(instances) => { @for instance in instances { (instance_row(instance)) } }
                }
            }
        }
    }
}

fn instance_row(instance: &Instance) -> Markup {
    let up = Duration::from_millis(unix_millis().0.saturating_sub(instance.started_at.0));
    let l1 = instance.l1;
    let p99 = instance.load.p99_us.map(Duration::from_micros);
    let seen =
        if instance.is_here { "now".to_owned() } else { format!("{} ago", number::latency(instance.last_seen)) };
    html! {
        tr data-instance=(instance.id) data-key=(instance.id) {
            th scope="row" title=(instance.id) {
                (instance.address)
                @if instance.is_here { " " span.badge { "this one" } }
            }
            td data-label="Version" { (instance.version) }
            td.number data-label="Up for" { (number::span(up)) }
            td.number data-label="Last seen" { (seen) }
            td.number data-label="Operations" { (number::rate(instance.load.operations_per_second)) }
            td.number data-label="p99" { (p99.map_or_else(|| number::UNKNOWN.to_owned(), number::latency)) }
            @if l1.max_bytes == 0 {
                td.number data-label="L1 entries" { (number::UNKNOWN) }
                td.number data-label="L1 memory" { "off" }
                td.number data-label="L1 hits" { (number::UNKNOWN) }
            } @else {
                td.number data-label="L1 entries" { (number::count(l1.entries)) }
                td.number data-label="L1 memory" {
                    (number::bytes(l1.bytes)) span.muted { " of " (number::bytes(l1.max_bytes)) }
                    (bar(l1.bytes, l1.max_bytes))
                }
                td.number data-label="L1 hits" { (number::count(l1.hits)) }
            }
            td data-label="Ring" { code { (instance.ring_version) } }
        }
    }
}
