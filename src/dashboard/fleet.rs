//! The shards and the instances, as tables.

use std::time::Duration;

use maud::{Markup, html};

use super::figure::{Figure, bar, cell, cell_with, headings, known};
use super::fleet_snapshot::{FleetSnapshot, Shard};
use crate::clock::unix_millis;
use crate::fleet::Instance;
use crate::number;
use crate::store::Role;

pub fn shards(snapshot: &FleetSnapshot) -> Markup {
    let columns = ["Shard", "State", "Role", "Memory", "Keys", "Share of the ring", "Watermark age"];
    let shown = if snapshot.max_staleness.is_some() { &columns[..] } else { &columns[..6] };
    html! {
        table.cards #shards {
            caption.hidden { "Shards, their state and memory" }
            (headings(shown, &(3..7)))
            tbody {
                @for shard in &snapshot.shards { (shard_row(shard, snapshot.max_staleness)) }
            }
        }
    }
}

fn shard_row(shard: &Shard, max_staleness: Option<Duration>) -> Markup {
    let state = shard.state();
    let view = shard.view.as_ref();
    let survey = view.map(|view| &view.survey);
    let role = survey.and_then(|survey| survey.role).map(|role| match role {
        Role::Primary => "primary",
        Role::Replica => "replica",
    });
    // A shard that does not answer has no numbers.
    let health = survey.map(|survey| &survey.health).filter(|health| health.reachable);
    let memory = html! {
        @if let Some(health) = health.filter(|health| health.limit_bytes > 0) {
            span.muted { " of " (number::bytes(health.limit_bytes)) }
            (bar(health.used_bytes, health.limit_bytes))
        }
    };
    let ring_share = view.map(|view| view.ring_share);
    let watermark_age = view.and_then(|view| view.watermark_age);
    html! {
        tr data-shard=(shard.name) data-state=(state) data-key=(shard.name) {
            th scope="row" {
                (shard.name)
                @if let Some(address) = &shard.address { " " span.muted { code { (address) } } }
            }
            td data-label="State" { span.state data-state=(state) { (state) } }
            td data-label="Role" { (role.unwrap_or(number::UNKNOWN)) }
            (cell_with("Memory", &Figure::bytes(health.map(|health| health.used_bytes)), &memory))
            (cell("Keys", &Figure::count(survey.and_then(|survey| survey.keys))))
            (cell("Share of the ring", &Figure::text(known(ring_share, number::percent))))
            @if let Some(most) = max_staleness {
                @let is_late = watermark_age.is_none_or(|age| age > most);
                td.number data-label="Watermark age" data-late=[is_late.then_some("")] {
                    (known(watermark_age, number::latency))
                }
            }
        }
    }
}

pub fn instances(snapshot: &FleetSnapshot) -> Markup {
    html! {
        table.cards #instances {
            caption.hidden { "Instances, their load and their memory" }
            (headings(
                &["Address", "Version", "Up for", "Last seen", "Operations", "p99", "L1 entries", "L1 memory", "L1 hits", "Ring"],
                &(2..9),
            ))
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
    let seen =
        if instance.is_here { "now".to_owned() } else { format!("{} ago", number::latency(instance.last_seen)) };
    // If L1 is off, it has no numbers.
    let l1 = Some(instance.l1).filter(|l1| l1.max_bytes > 0);
    let memory = html! {
        @if let Some(l1) = l1 {
            span.muted { " of " (number::bytes(l1.max_bytes)) }
            (bar(l1.bytes, l1.max_bytes))
        }
    };
    html! {
        tr data-instance=(instance.id) data-key=(instance.id) {
            th scope="row" title=(instance.id) {
                (instance.address)
                @if instance.is_here { " " span.badge { "this one" } }
            }
            td data-label="Version" { (instance.version) }
            (cell("Up for", &Figure::text(number::span(up))))
            (cell("Last seen", &Figure::text(seen)))
            (cell("Operations", &Figure::rate(Some(instance.load.operations_per_second))))
            (cell("p99", &Figure::latency(instance.load.p99_us.map(Duration::from_micros))))
            (cell("L1 entries", &Figure::count(l1.map(|l1| l1.entries))))
            (cell_with("L1 memory", &Figure::text(l1.map_or("off".to_owned(), |l1| number::bytes(l1.bytes))), &memory))
            (cell("L1 hits", &Figure::count(l1.map(|l1| l1.hits))))
            td data-label="Ring" { code { (instance.ring_version) } }
        }
    }
}
