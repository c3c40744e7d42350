"""The field's usual way: a Structured Streaming job that filters readings by a threshold and writes them to Kafka.

Run with Weir's own Python: `spark_threshold.py '{"client": {…}, "topic": …, "output": …, "folder": …}'`. Micro-batches
follow each other without a pause, which is Spark's default and its quickest exactly-once source; its Kafka sink is at
least once.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from pyspark.sql import functions as F

from connections.spark import session
from fleet.settings import Settings

SCHEMA = "device_id string, event_time long, values struct<temperature: double>"


def main() -> None:
    asked = json.loads(sys.argv[1])
    with session(Settings.load(), "latency-peer") as spark:
        readings = spark.readStream.format("kafka").options(**asked["client"]).option("subscribe", asked["topic"])
        parsed = readings.load().select(F.from_json(F.col("value").cast("string"), SCHEMA).alias("r")).select("r.*")
        hot = parsed.where("values.temperature > 35").select(
            F.col("device_id").alias("key"), F.to_json(F.struct("device_id", "event_time")).alias("value")
        )
        query = (
            hot.writeStream.format("kafka").options(**asked["client"]).option("topic", asked["output"])
            .option("checkpointLocation", asked["folder"]).start()
        )  # fmt: skip
        while query.lastProgress is None:
            query.awaitTermination(1)
        print("ready", flush=True)
        query.awaitTermination()


if __name__ == "__main__":
    main()
