//! Keys: what is told as pressed was, and what was pressed is told.
use super::*;

#[test]
fn what_is_acknowledged_was_pressed() {
    let mut history = fail();
    history.asked[0].kind = Kind::Presses;
    let told = &mut history.told[0];
    (told.reason, told.acknowledged) = (Some(Reason::Acknowledged), Some(('1', s(2))));
    broken(&history, &[Rule::NotPressed]);
    history.pressed = vec![pressed('2')];
    broken(&history, &[Rule::NotPressed]);
    history.pressed = vec![pressed('1')];
    broken(&history, &[]);
    assert_eq!(check(&history).acknowledged, 1);
    history.told[0].acknowledged = None;
    broken(&history, &[Rule::ToldWrong, Rule::Unheard]);
}

#[test]
fn what_was_pressed_over_a_fit_way_is_told() {
    let mut history = fail();
    history.asked[0].kind = Kind::Presses;
    history.told[0].reason = Some(Reason::AnsweredNoAck);
    history.pressed = vec![pressed('1')];
    broken(&history, &[Rule::Unheard]);
    let asterisk = |node: &str| Broken {
        subject: Subject::Node(node.into()),
        what: What::AsteriskKilled,
        from: s(2),
        until: Some(s(9)),
    };
    history.broken = vec![asterisk("pbx-2")];
    broken(&history, &[Rule::Unheard]);
    history.broken = vec![asterisk("pbx-1")];
    broken(&history, &[]);
    // Another key, or none asked for.
    history.broken.clear();
    history.pressed = vec![pressed('5')];
    broken(&history, &[]);
    history.asked[0].kind = Kind::Answers;
    history.pressed = vec![pressed('1')];
    broken(&history, &[]);
}

#[test]
fn what_was_pressed_while_the_control_plane_was_away_is_told_with_its_attempt() {
    let mut history = fail();
    history.asked[0].kind = Kind::Presses;
    let told = &mut history.told[0];
    (told.status, told.reason) = (CallStatus::Failed, Some(Reason::Interrupted));
    told.log[4].status = CallStatus::Failed;
    (told.attempts[0].ending, told.attempts[0].key) = (Some(EndingClass::Interrupted), Some('1'));
    history.pressed = vec![pressed('1')];
    broken(&history, &[Rule::Unheard]);
    let plane = |from, until| Broken {
        subject: Subject::Plane,
        what: What::PlaneKilled,
        from: s(from),
        until: Some(s(until)),
    };
    // Only later.
    history.broken = vec![plane(4, 5)];
    broken(&history, &[Rule::Unheard]);
    // There again, and not linked yet.
    history.broken.push(plane(0, 1));
    broken(&history, &[]);
    history.pressed[0].at = s(22);
    history.told[0].ended_at = Some(s(23));
    history.broken = vec![plane(0, 1)];
    broken(&history, &[Rule::Unheard]);
    history.broken = vec![plane(21, 23)];
    broken(&history, &[]);
    assert_eq!(check(&History { posted: posted(&history.told), ..history.clone() }).found_late, 1);
    // But told it is.
    history.told[0].attempts[0].key = None;
    broken(&history, &[Rule::Unheard]);
}
