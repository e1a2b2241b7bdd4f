//! `coordinator config`: the config as it would be used, and every key there is.

use super::{Failure, OK};
use crate::config::{self, Config, Sources};
use crate::terminal;

pub(super) fn print(sources: &Sources, json: bool) -> Result<u8, Failure> {
    let config = Config::load(sources)?;
    if json {
        terminal::answer(&format!("{:#}", config.to_json()));
    } else {
        terminal::answer(config.to_toml().trim_end());
    }
    Ok(OK)
}

pub(super) fn keys() -> Result<u8, Failure> {
    terminal::answer(config::reference().trim_end());
    Ok(OK)
}
