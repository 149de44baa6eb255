//! The form of a list's items and of its end.

use crate::message::Message;

/// What an event is to the list whose ActionID it bears.
#[derive(Debug)]
pub(crate) enum ListRole {
    Item,
    End { complete: bool, count: Option<usize> },
}

/// What some lists' ends have of their own: Status, and PJSIPShowRegistrationsOutbound (two).
const END_HEADERS: [&str; 3] = ["Items", "Registered", "NotRegistered"];

/// `None` if the event has neither form. An end is written by astman_send_list_complete_start and has its
/// ActionID in front, where a stranger would have to know it; the ActionID of an item is its last header
/// or directly behind the name (and the privilege).
pub(crate) fn list_role(message: &Message) -> Option<ListRole> {
    let headers = message.headers();
    let named =
        |at: usize, name: &str| headers.get(at).is_some_and(|header| header.name() == name.as_bytes());
    let sound = message.malformed_lines() == 0
        && message.all("ActionID").count() == 1
        && message.all("Event").count() == 1;
    if !sound {
        return None;
    }
    if message.get("EventList").is_none() {
        let placed = named(1, "ActionID") || named(2, "ActionID") || named(headers.len() - 1, "ActionID");
        return placed.then_some(ListRole::Item);
    }
    let form = named(1, "ActionID") && named(2, "EventList") && named(3, "ListItems");
    let own = |name: &[u8]| END_HEADERS.iter().any(|own| own.as_bytes() == name);
    let rest = headers.iter().skip(4).all(|header| own(header.name()));
    if !form || !rest || headers.len() > 4 + END_HEADERS.len() {
        return None;
    }
    let complete = message.get("EventList").is_some_and(|value| value.eq_ignore_ascii_case(b"complete"));
    let count = message.text("ListItems").and_then(|count| count.parse().ok());
    Some(ListRole::End { complete, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_registrations_is_an_end_and_a_foreign_header_makes_none() {
        let end = |more: &[(&str, &str)]| {
            let head =
                [("Event", "XComplete"), ("ActionID", "1"), ("EventList", "Complete"), ("ListItems", "2")];
            list_role(&Message::from_pairs(head.iter().chain(more).copied()))
        };
        let registrations = [("Registered", "0"), ("NotRegistered", "2")];
        assert!(matches!(end(&registrations), Some(ListRole::End { complete: true, count: Some(2) })));
        assert!(matches!(end(&[("Items", "2")]), Some(ListRole::End { .. })));
        assert!(end(&[("Injected", "2")]).is_none());
    }
}
