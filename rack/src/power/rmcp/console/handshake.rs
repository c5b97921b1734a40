//! From no session to one: abilities, Open Session, RAKP 1 to 4, privilege (IPMI 2.0 section 13.15). Each fault of the login has a name of its own.

use super::{
    super::{
        command::{Command, Completion, Reply},
        crypto::{Exchange, Keys, same},
        packet::{Kind, Malformed, Plus, Window, malformed, write_plain, write_setup},
        setup::{OpenRequest, OpenResponse, Proof, Rakp1, Rakp2, Status},
    },
    Awaited, Console, Failure, Link, Login, Phase, Step, Timestamp, WAITS, read_answer,
};

/// The user is looked up by name alone, not by name and privilege (RAKP 1, byte 25).
const NAME_ONLY: u8 = 0x10;

impl Console {
    /// Starts from nothing, with the pending command for the end.
    pub(super) fn begin(mut self, random: [u8; 16], now: Timestamp) -> Step {
        self.tries = 0;
        self.refused.clear();
        if self.login.quirks.no_abilities {
            return self.open(random, now);
        }
        self.next_message();
        self.probe(now)
    }

    pub(super) fn probe(mut self, now: Timestamp) -> Step {
        self.phase = Phase::Probing;
        let bytes = write_plain(&self.abilities_command().write(self.message));
        self.wait(bytes, now)
    }

    fn abilities_command(&self) -> Command {
        Command::ChannelAuth { privilege: self.login.privilege }
    }

    pub(super) fn abilities(mut self, message: &[u8], random: [u8; 16], now: Timestamp) -> Result<Step, Malformed> {
        let answer = read_answer(message, &self.abilities_command(), self.message, !self.login.quirks.no_checksums)?;
        match answer {
            Ok(Reply::ChannelAuth(said)) if !said.ipmi2 => Ok(self.end(Err(Failure::NotIpmi2))),
            // A BMC of 1.5 may know no request with the bit that asks for 2.0.
            Err(Completion::INVALID_FIELD) => Ok(self.end(Err(Failure::NotIpmi2))),
            Err(completion) => {
                let command = self.abilities_command().name();
                Ok(self.end(Err(Failure::Command { command, completion })))
            }
            Ok(_) => {
                self.tries = 0;
                Ok(self.open(random, now))
            }
        }
    }

    /// Open Session with the present suite.
    pub(super) fn open(mut self, random: [u8; 16], now: Timestamp) -> Step {
        let Some(suite) = self.suite() else {
            let refused = std::mem::take(&mut self.refused);
            return self.end(Err(Failure::NoSuite(refused)));
        };
        let console_session = u32::from_le_bytes([random[0], random[1], random[2], random[3]]).max(1);
        self.tag = self.tag.wrapping_add(1);
        let privilege = if self.login.quirks.open_session_privilege { self.login.privilege as u8 } else { 0 };
        let request = OpenRequest { tag: self.tag, privilege, console_session, algorithms: suite.algorithms() };
        self.phase = Phase::Opening { console_session };
        self.wait(write_setup(Kind::OpenRequest, &request.write()), now)
    }

    /// The present suite is refused: the next one, or the end.
    pub(super) fn next_suite(mut self, status: Option<Status>, random: [u8; 16], now: Timestamp) -> Step {
        if let Some(suite) = self.suite() {
            self.refused.push((suite, status));
        }
        self.suite += 1;
        self.tries = 0;
        let step = self.open(random, now);
        if matches!(step.then, super::Then::Wait(_)) {
            return step;
        }
        // All were refused: a later command begins with the first again.
        Step { next: Console { suite: 0, ..step.next }, ..step }
    }

    pub(super) fn opened(
        mut self,
        console_session: u32,
        plus: &Plus<'_>,
        random: [u8; 16],
        now: Timestamp,
    ) -> Result<Step, Malformed> {
        let said = OpenResponse::read(self.body(plus, Kind::OpenResponse)?)?;
        self.tagged(said.tag)?;
        let Some(suite) = self.suite() else { return Ok(self.end(Err(Failure::Confused))) };
        if said.status.is_of_the_suite() {
            return Ok(self.next_suite(Some(said.status), random, now));
        }
        if said.status != Status::OK {
            let failure = no_session(Awaited::Session, said.status, &self.login);
            return Ok(self.end(Err(failure)));
        }
        if said.console_session != console_session {
            return Err(malformed("the console's session id", said.console_session as usize, "the one asked with"));
        }
        if said.algorithms != suite.algorithms() {
            // Another suite than the one asked for: a BMC that chooses by itself, or somebody in between.
            return Ok(self.next_suite(Some(Status::NO_SUITE), random, now));
        }
        let quirk = self.login.quirks.open_session_privilege;
        let exchange = Exchange {
            suite,
            console_session,
            bmc_session: said.bmc_session,
            console_random: random,
            bmc_random: [0; 16],
            guid: [0; 16],
            role: self.login.privilege as u8 | if quirk { 0 } else { NAME_ONLY },
            user: self.login.user.clone().into_bytes(),
        };
        self.tag = self.tag.wrapping_add(1);
        let message = Rakp1 {
            tag: self.tag,
            bmc_session: exchange.bmc_session,
            console_random: exchange.console_random,
            role: exchange.role,
            user: exchange.user.clone(),
        };
        self.phase = Phase::Proving { exchange: Box::new(exchange) };
        Ok(self.wait_anew(write_setup(Kind::Rakp1, &message.write()), now))
    }

    pub(super) fn proved(mut self, mut exchange: Exchange, plus: &Plus<'_>, now: Timestamp) -> Result<Step, Malformed> {
        let said = Rakp2::read(self.body(plus, Kind::Rakp2)?)?;
        self.tagged(said.tag)?;
        if said.status != Status::OK {
            let failure = no_session(Awaited::Rakp2, said.status, &self.login);
            return Ok(self.end(Err(failure)));
        }
        if said.console_session != exchange.console_session {
            return Err(malformed("the console's session id", said.console_session as usize, "the one asked with"));
        }
        (exchange.bmc_random, exchange.guid) = (said.bmc_random, said.guid);
        let login = self.login.clone();
        let password = login.password.expose();
        self.tag = self.tag.wrapping_add(1);
        let mut proof = Proof { tag: self.tag, status: Status::OK, session: exchange.bmc_session, code: Vec::new() };
        if !same(&exchange.bmc_code(password), &said.code) {
            // Tells the BMC that its slot is free; no answer is owed.
            proof.status = Status::INVALID_CHECK;
            let step = self.end(Err(Failure::WrongPassword(login.user.clone())));
            return Ok(Step { send: Some(write_setup(Kind::Rakp3, &proof.write())), ..step });
        }
        proof.code = exchange.console_code(password);
        let session_key = exchange.session_key(login.kg.as_ref().map_or(password, |kg| kg.expose()));
        self.phase = Phase::Checking { exchange: Box::new(exchange), session_key };
        Ok(self.wait_anew(write_setup(Kind::Rakp3, &proof.write()), now))
    }

    pub(super) fn checked(
        mut self,
        exchange: &Exchange,
        session_key: &[u8],
        plus: &Plus<'_>,
        random: [u8; 16],
        now: Timestamp,
    ) -> Result<Step, Malformed> {
        let said = Proof::read(self.body(plus, Kind::Rakp4)?)?;
        self.tagged(said.tag)?;
        if said.status == Status::INVALID_CHECK && self.tries < WAITS.len() {
            // The password is right, RAKP 2 showed it. A RAKP 1 that the network doubled makes the BMC draw a second random number,
            // and we answered to the first.
            return Ok(self.open(random, now));
        }
        if said.status != Status::OK {
            let failure = no_session(Awaited::Rakp4, said.status, &self.login);
            return Ok(self.end(Err(failure)));
        }
        if said.session != exchange.console_session {
            return Err(malformed("the console's session id", said.session as usize, "the one asked with"));
        }
        if !self.login.quirks.no_check_value && !same(&exchange.check(session_key), &said.code) {
            // The password is right, RAKP 2 showed it: what differs is K_g.
            let given = self.login.kg.is_some();
            return Ok(self.end(Err(Failure::WrongKey { given })));
        }
        let link = Link {
            keys: Keys::new(exchange.suite, session_key),
            console_session: exchange.console_session,
            bmc_session: exchange.bmc_session,
            sent: 0,
            heard: Window::default(),
        };
        self.tries = 0;
        self.next_message();
        Ok(self.send_raise(link, random, now))
    }

    pub(super) fn raise(&self) -> Command {
        Command::SetPrivilege { privilege: self.login.privilege }
    }

    pub(super) fn send_raise(mut self, mut link: Link, random: [u8; 16], now: Timestamp) -> Step {
        let bytes = link.seal(&self.raise().write(self.message), random);
        self.phase = Phase::Raising { link };
        self.wait(bytes, now)
    }

    pub(super) fn raised(
        mut self,
        link: Link,
        answer: Result<Reply, Completion>,
        random: [u8; 16],
        now: Timestamp,
    ) -> Result<Step, Malformed> {
        let wanted = self.login.privilege;
        let failure = |said| Failure::Privilege { wanted, said };
        let failed = match answer {
            Ok(Reply::Privilege(level)) if level >= wanted => {
                self.tries = 0;
                self.next_message();
                return Ok(self.command(link, false, random, now));
            }
            Ok(Reply::Privilege(level)) => failure(format!("it gives {level}")),
            Ok(_) => failure("it gives none".into()),
            // That says nothing of the user.
            Err(completion) if completion.may_pass() => Failure::Command { command: self.raise().name(), completion },
            Err(completion) => failure(completion.to_string()),
        };
        // The session is of no use; it ends with a word, so that its slot is free.
        self.phase = Phase::Open { link };
        let closed = self.close(random);
        let step = closed.next.end(Err(failed));
        Ok(Step { send: closed.send, ..step })
    }

    /// The body of a set-up message of that kind.
    fn body<'a>(&self, plus: &Plus<'a>, kind: Kind) -> Result<&'a [u8], Malformed> {
        if plus.kind != kind || plus.encrypted || plus.session != 0 {
            return Err(malformed("the payload type", plus.kind as usize, "the answer to the last set-up message"));
        }
        Ok(plus.payload)
    }

    fn tagged(&self, tag: u8) -> Result<(), Malformed> {
        if tag == self.tag {
            Ok(())
        } else {
            Err(malformed("the message tag", tag.into(), "that of the last set-up message"))
        }
    }

    /// Waits for the answer to a new message. What a whole handshake may be started over is counted on.
    fn wait_anew(mut self, bytes: Vec<u8>, now: Timestamp) -> Step {
        self.tries = self.tries.saturating_sub(1);
        self.wait(bytes, now)
    }
}

/// What a refusal of set-up means.
fn no_session(to: Awaited, status: Status, login: &Login) -> Failure {
    match status {
        Status::UNAUTHORIZED_NAME | Status::INVALID_NAME_LENGTH => Failure::WrongUser(login.user.clone()),
        Status::INVALID_ROLE | Status::UNAUTHORIZED_ROLE => {
            Failure::Privilege { wanted: login.privilege, said: status.to_string() }
        }
        _ => Failure::NoSession { to, status },
    }
}
