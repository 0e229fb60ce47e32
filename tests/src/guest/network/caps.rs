//! What the farmer allows of his line: a rate over all spaces, and a trickle once the month is used up.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use market::quantity::BitsPerSecond;
use provision::firewall::{Caps, Openings, TRICKLE};

use super::town::{EAR, INTERNET, NODE, Town, knock, speed};
use super::{FAST, Spaces, apply, path, plan};
use provision::network::inside;

/// The rate of all together is kept by all together; without it they have more.
pub async fn rate_of_all() -> Result<()> {
    const RATE: BitsPerSecond = BitsPerSecond(16_000_000);
    const BYTES: usize = 4_000_000;
    let town = Town::build().await?;
    let spaces = Spaces::build(&town, Openings::default(), FAST).await?;
    let [first, _, other] = &spaces.all[..] else {
        bail!("three spaces")
    };
    let (one, another) = (path(first), path(other));
    let mut found = Vec::new();
    for rate in [None, Some(RATE)] {
        let mut plan = plan(&spaces.all, &town, Openings::default())?;
        plan.caps.rate = rate;
        apply(&spaces.all, &plan).await?;
        for send in [true, false] {
            // What a pause has saved up is used first.
            speed(&one, INTERNET, send, BYTES).await?;
            let began = Instant::now();
            let (one, another) = tokio::join!(
                speed(&one, INTERNET, send, BYTES),
                speed(&another, INTERNET, send, BYTES)
            );
            one?;
            another?;
            let bits = 16.0 * BYTES as f64 / began.elapsed().as_secs_f64();
            println!("{rate:?}, towards the spaces: {send}: {:.2} Mbit/s", bits / 1e6);
            found.push(bits);
        }
    }
    let most = RATE.0 as f64 * 1.1;
    ensure!(
        found[2..].iter().all(|bits| *bits < most),
        "more passed than the farmer allows: {found:?}"
    );
    ensure!(
        found[2..].iter().all(|bits| *bits > RATE.0 as f64 * 0.3),
        "much less passed than the farmer allows: {found:?}"
    );
    ensure!(
        found[..2].iter().all(|bits| *bits > most),
        "without the limit it is as slow: {found:?}"
    );
    spaces.remove().await?;
    town.remove().await
}

/// When the month is used up a login still comes through, and mass traffic does not.
pub async fn trickle() -> Result<()> {
    const DATAGRAMS: usize = 400;
    let town = Town::build().await?;
    let spaces = Spaces::build(&town, Openings::default(), FAST).await?;
    let first = path(&spaces.all[0]);
    let mut found = Vec::new();
    for slowed in [false, true] {
        let mut plan = plan(&spaces.all, &town, Openings::default())?;
        plan.caps = Caps { rate: None, slowed };
        apply(&spaces.all, &plan).await?;
        let began = Instant::now();
        let send = || -> std::io::Result<()> {
            let socket = UdpSocket::bind(("0.0.0.0", 0))?;
            for _ in 0..DATAGRAMS {
                // What a wall drops is no error.
                let _ = socket.send_to(&[0; 1000], (INTERNET, EAR));
                std::thread::yield_now();
            }
            Ok(())
        };
        inside::run(Some(&first), send).await??;
        let (mut heard, mut last) = (0, began.elapsed());
        while town.hears_after_all().is_some() {
            heard += 1;
            last = began.elapsed();
        }
        // What may come at once, and what the time until the last allows.
        let most = 64 + last.as_secs() * TRICKLE.0 / 8000 + 8;
        println!("slowed: {slowed}: {heard} of {DATAGRAMS} datagrams, at most {most} when slowed");
        found.push((heard, most));
    }
    let end = Instant::now() + Duration::from_secs(20);
    while knock(town.path(), NODE, 2201).await.is_err() {
        ensure!(Instant::now() < end, "slowed, the declared port does not answer");
    }
    knock(&first, INTERNET, 80).await?;
    ensure!(found[1].0 <= found[1].1 && found[1].0 > 0, "slowed: {found:?}");
    ensure!(found[0].0 > 2 * found[0].1, "not slowed: {found:?}");
    spaces.remove().await?;
    town.remove().await
}
