//! The last request and its offers, so that `steading buy 1` takes the first of them.

use std::path::PathBuf;

use anyhow::Context;
use market::envelope::{self, Signed};
use market::message::{CapacityRequest, Offer};

use super::Store;
use crate::exit::{Code, Failure, Outcome};
use crate::files::{make_folder, read_if_there, write_whole};

/// A request and what was offered, the best first.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The request.
    pub request: Signed<CapacityRequest>,
    /// The offers, in the order in which they were shown.
    pub offers: Vec<Signed<Offer>>,
}

impl Store {
    fn asked_folder(&self) -> PathBuf {
        self.folders.state.join("asked")
    }

    /// Keeps request and offers in the place of the last ones.
    pub fn keep_asked(&self, asked: &Asked) -> Outcome {
        let folder = self.asked_folder();
        match std::fs::remove_dir_all(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let what = format!("{} cannot be replaced", folder.display());
                return Err(Failure::new(Code::Unexpected, what).because(error));
            }
        }
        make_folder(&folder)?;
        write_whole(&folder.join("request"), &asked.request.bytes)?;
        for (offer, number) in asked.offers.iter().zip(1..) {
            write_whole(&folder.join(format!("offer-{number}")), &offer.bytes)?;
        }
        Ok(())
    }

    /// The last request and its offers.
    pub fn asked(&self) -> Outcome<Asked> {
        let folder = self.asked_folder();
        let nothing = || {
            Failure::new(Code::NotFound, "there are no offers to choose from")
                .next("ask for some with `steading request`, or let `steading buy --cpu … --memory …` ask and take the best")
        };
        let damaged = || format!("{} is damaged", folder.display());
        let bytes = read_if_there(&folder.join("request"))?.ok_or_else(nothing)?;
        let request = envelope::open(&bytes, None).with_context(damaged)?;
        let mut offers = Vec::new();
        for number in 1.. {
            let Some(bytes) = read_if_there(&folder.join(format!("offer-{number}")))? else {
                break;
            };
            offers.push(envelope::open(&bytes, None).with_context(damaged)?);
        }
        if offers.is_empty() {
            return Err(nothing());
        }
        Ok(Asked { request, offers })
    }
}
