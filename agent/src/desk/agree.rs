//! From an agreed offer to a sale.

use market::envelope::{Signed, sign};
use market::message::{self, Agree, RefusalCode};
use market::prices::Prices;
use market::quantity::{Bytes, UnixMillis};
use market::sale::{Deal, Sale};
use provision::space::SpaceSpec;

use super::{Counter, Made};
use crate::sales::{Keeper, No, Record, boot_ms};
use crate::words::chain;
use escrow::RailTime;

/// Nothing is remembered of an offer to one who only looked, nor of one that lapsed.
const NO_OFFER: &str = "no offer stands for this request: it has lapsed, or the request only looked";

/// As [`crate::sales`] counts it.
const UNPAID: &str =
    "three spaces of this account's ended here unpaid within a day: pay what runs, or come again later";

fn no(code: RefusalCode, words: impl Into<String>) -> No {
    No {
        code,
        words: words.into(),
    }
}

impl Counter {
    /// Signs the sale, if the offer it names is this node's, stands, and was not agreed by another. The same Agree
    /// again gets the same Sale again.
    pub(crate) async fn agree(&self, agree: Signed<Agree>) -> Result<Vec<u8>, No> {
        let _alone = self.agreeing.lock().await;
        let (body, sale) = (&agree.message.body, agree.message.sale);
        if self.shared.keeper(sale).is_some() {
            return self.signed_before(sale).await;
        }
        if body.node != self.node() {
            return Err(no(RefusalCode::OfferGone, "this is another node's offer"));
        }
        if self.shared.is_owed_too_often(&body.payer) {
            return Err(no(RefusalCode::Unpaid, UNPAID));
        }
        let made = self.made().get(&body.request).cloned();
        let made = made.ok_or_else(|| no(RefusalCode::OfferGone, NO_OFFER))?;
        body.matches(&made.request, &made.offer)
            .map_err(|error| no(RefusalCode::Mismatch, error.to_string()))?;
        let agreed = self.shared.book().agree(body.request, sale, boot_ms());
        agreed.map_err(|error| no(RefusalCode::OfferGone, error.to_string()))?;
        let group = self.shared.book().group_of(sale);
        let group = group.ok_or_else(|| no(RefusalCode::OfferGone, "the offer has lapsed"))?;
        let signed = sign(
            &self.shared.node_key,
            self.shared.grid_id,
            message::Sale { agree },
        );
        let signed = signed.map_err(|error| no(RefusalCode::Mismatch, chain(&error)))?;
        let bytes = signed.bytes.clone();
        let kept = self.keep_new(signed, made, group).await;
        let record = match kept {
            Ok(record) => record,
            Err(why) => return Err(self.forget(sale, &why)),
        };
        self.made().remove(&record.signed.message.body().request);
        Keeper::start(self.shared.clone(), record, None);
        Ok(bytes)
    }

    /// The record of a new sale, once the journal has it; else why not.
    async fn keep_new(
        &self,
        signed: Signed<message::Sale>,
        made: Made,
        group: market::id::GroupId,
    ) -> Result<Record, String> {
        let record = self.record(signed, &made, group);
        let (request, offer) = (made.request.bytes, made.offer.bytes);
        let declared = self.farmer.public_address.is_some();
        let ports = self.farmer.ports.clone().filter(|_| declared);
        let written = record
            .write_new(&self.shared.journal, request, offer, ports)
            .await;
        written.map_err(|error| chain(&error))
    }

    /// The offer stands as before: it may be agreed again, or lapses, and what is remembered of it with it.
    fn forget(&self, sale: market::id::SaleId, why: &str) -> No {
        self.shared.book().disagree(sale, boot_ms());
        self.shared
            .board
            .event(format!("{}: the journal does not take it: {why}", sale.name()));
        no(RefusalCode::Busy, "the node's journal does not take it now")
    }

    async fn signed_before(&self, sale: market::id::SaleId) -> Result<Vec<u8>, No> {
        let row = self.shared.journal.write(move |entry| entry.sale(&sale)).await;
        let row = row.ok().flatten();
        row.map(|row| row.signed)
            .ok_or_else(|| no(RefusalCode::NoSale, "the sale is not in the journal"))
    }

    fn record(&self, signed: Signed<message::Sale>, made: &Made, group: market::id::GroupId) -> Record {
        let (body, id) = (signed.message.body().clone(), signed.message.id());
        let gives = made.gives;
        let (price, period, periods, notice) = (body.price, body.period, body.periods, body.notice);
        let deal = Deal {
            id,
            prices: Prices::of(price),
            period,
            periods,
            notice,
        };
        let expires: UnixMillis = made.request.message.expires;
        let now = self
            .shared
            .clock
            .now(RailTime::from(expires.min(made.offer.message.valid_until)));
        let spec = SpaceSpec {
            sale: id,
            user: body.user,
            name: id.name(),
            cpu: gives.cpu,
            memory: gives.memory,
            disk: gives.disk,
            rate: gives.rate,
            pids: gives.pids,
            base: body.base,
            group,
            public_port: None, // as it is written
            snapshot: Bytes::ZERO,
        };
        Record {
            sale: Sale::agreed(deal, now),
            signed,
            spec,
            host_key: None,
            receipt: None,
            amended: None,
        }
    }
}
