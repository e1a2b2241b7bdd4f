//! `coordinator start --seeds N`: one experiment with the seeds `run.seed`, `run.seed + 1`, …, one after another or some at
//! once, each a whole run in a directory of its own. Stopped like a single run; `--resume` goes on with what is not finished.

use std::path::Path;
use std::sync::atomic::Ordering;

use domain::comparison::seeds::spread;
use serde_json::Value;

use super::at_once::{self, ToDo};
use super::signals::watch_signals;
use super::{Environment, Failure, OK, StartArgs, USAGE, no_color, start};
use crate::config::{Config, Sources};
use crate::machine::Machine;
use crate::run_dir::has_begun;
use crate::seed_dirs;
use crate::slots;
use crate::terminal::{Terminal, figures, row};

/// Runs all seeds to their end, or to where one stops; gives the exit code.
pub(super) fn run(args: &StartArgs, count: u32, environment: &Environment) -> Result<u8, Failure> {
    let (sources, first) = base(args, environment)?;
    let seeds: Vec<u64> = (first..).take(count as usize).collect();
    let say = |lines: &[String]| {
        // Its own terminal each time: the runs in between have theirs.
        let terminal = Terminal::new(args.quiet, no_color(environment));
        lines.iter().for_each(|line| terminal.say(line));
    };
    let at_once = args.at_once.min(count);
    if at_once > 1 {
        return side_by_side(args, &sources, &seeds, at_once, environment, &say);
    }
    let runtime = super::runtime()?;
    let told_to_stop = runtime.block_on(async { watch_signals() })?;
    for (number, &seed) in (1..).zip(&seeds) {
        let run_dir = seed_dirs::of(&args.run_dir, seed);
        if is_finished(&run_dir) {
            say(&[format!(
                "seed {seed} ({number} of {count}) is finished: {}",
                run_dir.display()
            )]);
            continue;
        }
        if told_to_stop.load(Ordering::Relaxed) {
            say(&stopped(args, count));
            return Ok(OK);
        }
        say(&[format!(
            "seed {seed} ({number} of {count}): {}",
            run_dir.display()
        )]);
        let resume = has_begun(&run_dir);
        let of_seed = StartArgs {
            run_dir: run_dir.clone(),
            resume,
            ..args.clone()
        };
        let prepared = start::prepare(&of_seed, &with_seed(&sources, seed), environment)?;
        let exit_code = runtime.block_on(start::start(prepared))?;
        if exit_code != OK || !is_finished(&run_dir) {
            say(&stopped(args, count));
            return Ok(exit_code);
        }
    }
    say(&all_done(args, &seeds));
    Ok(OK)
}

/// The same, `at_once` of them at a time.
fn side_by_side(
    args: &StartArgs,
    sources: &Sources,
    seeds: &[u64],
    at_once: u32,
    environment: &Environment,
    say: &dyn Fn(&[String]),
) -> Result<u8, Failure> {
    // Mistakes of the config are told once, and not by every seed.
    let config = Config::load(sources)?;
    let machine = Machine::look(|name| environment.get(name).cloned())?;
    let visible = environment.get("CUDA_VISIBLE_DEVICES");
    let division = slots::divide(&config, &machine, visible.map(String::as_str), at_once)
        .map_err(|error| Failure::new(USAGE, error.to_string()))?;
    if let Some(warning) = &division.warning {
        Terminal::new(true, true).warn(warning);
    }
    let mut to_do = Vec::new();
    for &seed in seeds {
        let run_dir = seed_dirs::of(&args.run_dir, seed);
        let finished = is_finished(&run_dir);
        let state = if finished { " is finished" } else { "" };
        say(&[format!("seed {seed}{state}: {}", run_dir.display())]);
        if !finished {
            let resume = has_begun(&run_dir);
            to_do.push(ToDo {
                seed,
                run_dir,
                resume,
            });
        }
    }
    let end = super::runtime()?.block_on(at_once::run(args, sources, &division, to_do))?;
    let finished = |seed: &u64| is_finished(&seed_dirs::of(&args.run_dir, *seed));
    if end.exit_code == OK && seeds.iter().all(finished) {
        say(&all_done(args, seeds));
    } else {
        let count = u32::try_from(seeds.len()).unwrap_or(u32::MAX);
        say(&stopped(args, count));
    }
    Ok(end.exit_code)
}

/// What the seeds have in common, and the first of them.
///
/// On a resume it is what the first of them has recorded: later ones must be of the same config and placement.
fn base(args: &StartArgs, environment: &Environment) -> Result<(Sources, u64), Failure> {
    let folder = args.run_dir.display();
    if has_begun(&args.run_dir) {
        return Err(Failure::new(
            USAGE,
            format!(
                "{folder}: a single run is here: give --seeds a folder of its own by --run-dir"
            ),
        ));
    }
    let mut sources = args.config.sources(environment);
    let begun = seed_dirs::existing(&args.run_dir);
    match (begun.first(), args.resume) {
        (None, false) => {
            let config = Config::load(&sources)?;
            Ok((sources, config.run.seed))
        }
        (Some((seed, run_dir)), true) => {
            sources.file = Some(run_dir.join("config.toml"));
            Ok((sources, *seed))
        }
        (Some(_), false) => Err(Failure::new(
            USAGE,
            format!(
                "{folder}: {} of this experiment {} begun here already: go on by --resume, or choose another --run-dir",
                figures::count(begun.len() as u64, "seed", "seeds"),
                if begun.len() == 1 { "has" } else { "have" }
            ),
        )),
        (None, true) => Err(Failure::new(
            USAGE,
            format!(
                "{folder}: there are no runs by seed to resume here (seed-0/config.toml and so on): leave out --resume, or check \
                 --run-dir"
            ),
        )),
    }
}

fn with_seed(sources: &Sources, seed: u64) -> Sources {
    let mut sources = sources.clone();
    sources
        .flags
        .push(("run.seed", "--seeds", seed.to_string()));
    sources
}

/// Whether the run there has done all its epochs.
fn is_finished(run_dir: &Path) -> bool {
    summary(run_dir)["ended"] == "finished"
}

fn summary(run_dir: &Path) -> Value {
    let text = std::fs::read(run_dir.join("summary.json"));
    text.ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

fn stopped(args: &StartArgs, count: u32) -> Vec<String> {
    let at_once = match args.at_once {
        1 => String::new(),
        at_once => format!(" --at-once {at_once}"),
    };
    let next = format!(
        "coordinator start --resume --seeds {count}{at_once} --run-dir {}",
        args.run_dir.display()
    );
    vec![String::new(), row("all seeds", &next)]
}

fn all_done(args: &StartArgs, seeds: &[u64]) -> Vec<String> {
    let mut lines = vec![String::new(), "mAP of all seeds".to_owned()];
    let (mut lasts, mut bests) = (Vec::new(), Vec::new());
    for &seed in seeds {
        let summary = summary(&seed_dirs::of(&args.run_dir, seed));
        let (last, best) = (summary["map"].as_f64(), summary["best_map"].as_f64());
        lasts.extend(last);
        bests.extend(best);
        let text = format!(
            "{} last; best {} in epoch {}, chosen on this split",
            figures::percent(last),
            figures::percent(best),
            summary["best_epoch"]
        );
        lines.push(row(&format!("seed {seed}"), &text));
    }
    for (label, maps) in [("mean last", lasts), ("mean best", bests)] {
        if let Some(spread) = spread(&maps) {
            let deviation = spread.deviation.map_or_else(String::new, |deviation| {
                format!(" ± {:.2} (standard deviation)", 100.0 * deviation)
            });
            lines.push(row(
                label,
                &format!("{}{deviation}", figures::percent(Some(spread.mean))),
            ));
        }
    }
    let next = format!("coordinator compare {} OTHER", args.run_dir.display());
    lines.push(row("next", &next));
    lines
}
