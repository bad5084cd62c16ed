-- Use that was served and is charged to nobody: beyond a ceiling or a hold, or not measured. Partial, like the
-- readers' other indexes: it holds no row of ordinary use.
CREATE INDEX events_written_off ON events (month) WHERE written_off > 0;
