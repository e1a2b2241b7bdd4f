//! What is filed and what of it is taken.

use super::*;
use v1::session_response::Message;

fn generation(number: u64) -> Message {
    Message::Generation(v1::Generation {
        number,
        world_size: 1,
        ..Default::default()
    })
}

fn plan(generation: u64, step: u64) -> Message {
    let step = v1::StepPlan {
        step,
        ..Default::default()
    };
    let item = v1::PlanItem {
        item: Some(v1::plan_item::Item::Step(step)),
    };
    Message::Plan(v1::Plan {
        generation,
        items: vec![item],
    })
}

#[test]
fn a_plan_of_an_older_generation_changes_nothing() {
    let inbox = Inbox::default();
    inbox.file(generation(2));
    inbox.file(plan(1, 7));
    inbox.file(plan(2, 8));

    let items = inbox.items(true).unwrap();

    assert_eq!(items.len(), 1);
    let Some(v1::plan_item::Item::Step(step)) = &items[0].item else {
        panic!("a step was planned")
    };
    assert_eq!(step.step, 8);
}

#[test]
fn a_new_generation_drops_what_was_planned_before() {
    let inbox = Inbox::default();
    inbox.file(generation(1));
    inbox.file(plan(1, 7));
    inbox.file(generation(2));

    assert!(inbox.items(false).unwrap().is_empty());
}

fn regroup(generation: u64, at_boundary: bool) -> Message {
    Message::Regroup(v1::Regroup {
        generation,
        at_boundary,
        reason: "worker-1 died".into(),
    })
}

#[test]
fn a_generation_that_is_over_has_no_further_items_until_the_next_one_comes() {
    let inbox = Inbox::default();
    inbox.file(generation(2));
    inbox.file(plan(2, 8));
    inbox.file(regroup(1, false));
    assert!(!inbox.is_over(), "that was an older one");
    inbox.file(regroup(2, false));

    assert_eq!(
        inbox.items(true).unwrap_err(),
        Break::Regroup("worker-1 died".into())
    );
    assert_eq!(inbox.until_over(2).as_deref(), Some("worker-1 died"));
    inbox.file(generation(3));
    assert_eq!(inbox.until_over(2), None);
    inbox.file(plan(3, 8));
    assert_eq!(inbox.items(true).unwrap().len(), 1);
}

#[test]
fn a_request_for_the_next_boundary_ends_nothing_by_itself() {
    let inbox = Inbox::default();
    inbox.file(generation(2));
    inbox.file(plan(2, 8));
    inbox.file(regroup(2, true));

    assert!(inbox.requests.regroup());
    assert_eq!(inbox.items(true).unwrap().len(), 1);
    inbox.file(generation(3));
    assert!(!inbox.requests.regroup());
}

#[test]
fn a_worker_that_is_told_to_end_does_so_at_once_only_outside_of_a_generation() {
    let inbox = Inbox::default();
    inbox.file(generation(2));
    inbox.generation(false).unwrap();
    inbox.drain();
    assert_eq!(inbox.ended(), None);
    assert!(inbox.requests.drain());

    // The generation is over before its next boundary: with a state it is there for the next one, to hand it over.
    inbox.file(generation(3));
    assert_eq!(inbox.generation(true).unwrap().number, 3);
    assert_eq!(inbox.ended(), None);

    // Without one nobody needs it.
    inbox.file(generation(4));
    assert_eq!(inbox.generation(false).unwrap_err().exit_code, 0);
}

#[test]
fn a_worker_that_is_told_to_end_while_it_sets_up_does_so_at_once() {
    let inbox = Inbox::default();
    inbox.drain();
    assert_eq!(inbox.ended().map(|ended| ended.exit_code), Some(0));
}

#[test]
fn the_first_reason_to_end_is_the_one_that_stands() {
    let inbox = Inbox::default();
    inbox.file(Message::Release(v1::Release {
        reason: "worker-1 died".into(),
        exit_code: 75,
    }));
    inbox.end("stream closed".into(), 1);

    assert_eq!(
        inbox.ended(),
        Some(Ended {
            reason: "worker-1 died".into(),
            exit_code: 75
        })
    );
    assert!(inbox.items(true).is_err());
}

#[test]
fn an_answer_is_waited_for_no_longer_than_the_generation_lives() {
    let inbox = Inbox::default();
    inbox.file(generation(2));
    let answer = Answer::default();

    // It is there
    inbox.answer(&answer, 7);
    assert_eq!(inbox.answered(&answer), Ok(7));

    // It comes while it is waited for
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| inbox.answered(&answer));
        inbox.answer(&answer, 8);
        assert_eq!(waiting.join().unwrap(), Ok(8));
    });

    // It never comes, because whoever is waited for to give it waits for this worker
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| inbox.answered(&answer));
        inbox.file(regroup(2, false));
        let waited = waiting.join().unwrap();
        assert!(matches!(waited, Err(Break::Regroup(_))), "{waited:?}");
    });
}

#[test]
fn a_step_is_begun_though_a_peer_died_but_not_by_who_was_told_to_end() {
    let inbox = Inbox::default();
    inbox.file(generation(1));
    inbox.generation(true).unwrap();
    inbox.file(regroup(1, false));
    assert!(matches!(inbox.goes_on(), Err(Break::Regroup(_))));
    assert!(inbox.lets_begin_step().is_ok());

    inbox.drain();
    assert!(matches!(inbox.lets_begin_step(), Err(Break::Regroup(_))));

    inbox.end("over".to_owned(), 70);
    assert!(matches!(inbox.lets_begin_step(), Err(Break::Ended(_))));
}
