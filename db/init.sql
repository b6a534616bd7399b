-- The four databases of the stack, on MySQL 9.7: each process has one of its own, and a user that can touch nothing else.
-- Run once, on an empty server, by an administrator. The users are locked until db/passwords.sh gives them a password.
-- Our processes have no right to change a schema: the tables are made here. (On SQLite each process makes its own.)

-- The orchestrator: the saga log -------------------------------------------------------------------------------------

CREATE DATABASE orchestrator CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE orchestrator.sagas (
    id              VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'UUIDv7: in the order of their start',
    name            VARCHAR(64) NOT NULL,
    definition      LONGTEXT NOT NULL COMMENT 'JSON: a snapshot, so that an edited YAML file changes no running saga',
    input           LONGTEXT NOT NULL COMMENT 'JSON',
    state           VARCHAR(24) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
                    COMMENT 'executing, deciding, sealing, finishing, compensating, stalled_ and one of the last four, completed, compensated',
    `cursor`        INTEGER NOT NULL COMMENT 'the step it is at, from 0',
    context         LONGTEXT NOT NULL COMMENT 'JSON: what its lines come to: of each step, of the call at the cursor, flags',
    epoch           INTEGER NOT NULL COMMENT 'raised by every claim: a write with an older one is refused',
    owner           VARCHAR(255) COMMENT 'who drives it; NULL: nobody',
    due_at          DATETIME(6) COMMENT 'UTC: the end of its lease, the next try of a stalled one, NULL: it has ended',
    rounds          INTEGER NOT NULL COMMENT 'how often in a row it has stalled',
    idempotency_key VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin,
    request_hash    VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin COMMENT 'SHA-256 of the input',
    error           LONGTEXT COMMENT 'JSON: the first cause of its failure',
    started_at      DATETIME(6) NOT NULL,
    ended_at        DATETIME(6),
    deadline_at     DATETIME(6),
    PRIMARY KEY (id),
    UNIQUE KEY (idempotency_key),
    KEY sagas_due (due_at),
    KEY sagas_state (state, id)
);

CREATE TABLE orchestrator.saga_log (
    id          BIGINT NOT NULL AUTO_INCREMENT COMMENT 'of the stream of all lines, GET /events',
    saga_id     VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    seq         INTEGER NOT NULL COMMENT 'from 1, without gaps',
    at          DATETIME(6) NOT NULL,
    event       VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'an event of the state machine, or a note: started, attempt, claimed, released, fault',
    step        VARCHAR(64),
    attempt     INTEGER,
    status_code INTEGER,
    duration_ms DOUBLE,
    detail      LONGTEXT COMMENT 'JSON',
    PRIMARY KEY (id),
    UNIQUE KEY saga_log_saga (saga_id, seq)
);

CREATE TABLE orchestrator.saga_results (
    saga_id VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    step    VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    result  LONGTEXT NOT NULL COMMENT 'JSON: what the action answered, written once',
    PRIMARY KEY (saga_id, step)
);

CREATE TABLE orchestrator.saga_bodies (
    saga_id  VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    seq      INTEGER NOT NULL COMMENT 'of the attempt''s line in saga_log',
    request  LONGTEXT NOT NULL COMMENT 'JSON: what was sent, masked and cut; see KEEP_BODIES',
    response LONGTEXT NOT NULL COMMENT 'JSON: what came back, masked and cut',
    PRIMARY KEY (saga_id, seq)
);

CREATE TABLE orchestrator.saga_outbox (
    id           BIGINT NOT NULL AUTO_INCREMENT,
    event_id     VARCHAR(400) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'the same each time that it is published',
    subject      VARCHAR(255) NOT NULL,
    payload      LONGTEXT NOT NULL COMMENT 'JSON',
    created_at   DATETIME(6) NOT NULL,
    published_at DATETIME(6) COMMENT 'UTC; NULL: not yet, or not yet known',
    PRIMARY KEY (id),
    UNIQUE KEY (event_id),
    KEY saga_outbox_new (published_at, id)
);

CREATE USER orchestrator ACCOUNT LOCK;
GRANT SELECT, INSERT, UPDATE, DELETE ON orchestrator.sagas TO orchestrator; -- DELETE: `saga prune`
GRANT SELECT, INSERT, DELETE ON orchestrator.saga_log TO orchestrator;
GRANT SELECT, INSERT, DELETE ON orchestrator.saga_results TO orchestrator;
GRANT SELECT, INSERT, DELETE ON orchestrator.saga_bodies TO orchestrator;
GRANT SELECT, INSERT, UPDATE, DELETE ON orchestrator.saga_outbox TO orchestrator;

-- Service A: users ---------------------------------------------------------------------------------------------------

CREATE DATABASE service_a CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE service_a.TABLE_A (
    id       BIGINT NOT NULL AUTO_INCREMENT,
    saga_id  VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'whose row it is',
    username VARCHAR(255) NOT NULL,
    PRIMARY KEY (id),
    KEY `ix_TABLE_A_saga_id` (saga_id)
);

CREATE TABLE service_a.saga_barrier (
    saga_id      VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    step         VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    state        VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'applied, refused, compensated, sealed (compensated before any action came)',
    request_hash VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'SHA-256 of the body that put it in its state',
    response     LONGTEXT COMMENT 'JSON: the saved answer',
    created_at   DATETIME(6) NOT NULL,
    updated_at   DATETIME(6) NOT NULL,
    PRIMARY KEY (saga_id, step)
);

CREATE TABLE service_a.saga_outbox LIKE orchestrator.saga_outbox;

CREATE TABLE service_a.saga_inbox (
    saga_id    VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    step       VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    giver      INTEGER NOT NULL COMMENT 'the position of the step that gave the fields, -1: who started the saga; -2: the step itself',
    fields     LONGTEXT NOT NULL COMMENT 'JSON: what a step of a choreographed saga was given, or acted with',
    created_at DATETIME(6) NOT NULL,
    PRIMARY KEY (saga_id, step, giver),
    KEY (created_at)
);

CREATE USER service_a ACCOUNT LOCK;
GRANT SELECT, INSERT, DELETE ON service_a.TABLE_A TO service_a;
GRANT SELECT, INSERT, UPDATE ON service_a.saga_barrier TO service_a;
GRANT SELECT, INSERT, UPDATE, DELETE ON service_a.saga_outbox TO service_a;
GRANT SELECT, INSERT, DELETE ON service_a.saga_inbox TO service_a;

-- Service B: addresses -----------------------------------------------------------------------------------------------

CREATE DATABASE service_b CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE service_b.TABLE_B (
    id      BIGINT NOT NULL AUTO_INCREMENT,
    saga_id VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'whose row it is',
    user_id BIGINT NOT NULL,
    address VARCHAR(255),
    PRIMARY KEY (id),
    KEY `ix_TABLE_B_saga_id` (saga_id)
);

CREATE TABLE service_b.saga_barrier LIKE service_a.saga_barrier;

CREATE TABLE service_b.saga_outbox LIKE orchestrator.saga_outbox;
CREATE TABLE service_b.saga_inbox LIKE service_a.saga_inbox;

CREATE USER service_b ACCOUNT LOCK;
GRANT SELECT, INSERT, DELETE ON service_b.TABLE_B TO service_b;
GRANT SELECT, INSERT, UPDATE ON service_b.saga_barrier TO service_b;
GRANT SELECT, INSERT, UPDATE, DELETE ON service_b.saga_outbox TO service_b;
GRANT SELECT, INSERT, DELETE ON service_b.saga_inbox TO service_b;

-- Service C: payments ------------------------------------------------------------------------------------------------

CREATE DATABASE service_c CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE service_c.TABLE_C (
    id      BIGINT NOT NULL AUTO_INCREMENT,
    saga_id VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'whose row it is',
    user_id BIGINT NOT NULL,
    payment VARCHAR(255),
    PRIMARY KEY (id),
    KEY `ix_TABLE_C_saga_id` (saga_id)
);

CREATE TABLE service_c.saga_barrier LIKE service_a.saga_barrier;

CREATE TABLE service_c.saga_outbox LIKE orchestrator.saga_outbox;
CREATE TABLE service_c.saga_inbox LIKE service_a.saga_inbox;

CREATE USER service_c ACCOUNT LOCK;
GRANT SELECT, INSERT ON service_c.TABLE_C TO service_c; -- no DELETE: a payment is never undone
GRANT SELECT, INSERT, UPDATE ON service_c.saga_barrier TO service_c;
GRANT SELECT, INSERT, UPDATE, DELETE ON service_c.saga_outbox TO service_c;
GRANT SELECT, INSERT, DELETE ON service_c.saga_inbox TO service_c;
