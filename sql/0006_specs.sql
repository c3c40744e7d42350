-- Each device type as the log of a topic was last told it, so that it is told again only when the text is another.
CREATE TABLE specs (
    kafka_topic text    NOT NULL,
    type        text    NOT NULL,
    version     integer NOT NULL,
    text        text    NOT NULL, -- YAML
    is_in_force boolean NOT NULL, -- false: the type is no more in this topic, and the text has no rules
    PRIMARY KEY (kafka_topic, type)
);
