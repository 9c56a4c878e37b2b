"""Canned estimators on feature columns, as in the tutorials of TensorFlow 1.13 to 2.15."""

import argparse

import numpy as np
import tensorflow as tf

parser = argparse.ArgumentParser()
parser.add_argument("--model_dir", required=True)
parser.add_argument("--steps", type=int, default=150)


def make_data():
    random = np.random.RandomState(0)
    features = {
        "age": random.uniform(18, 70, size=200).astype(np.float32),
        "job": random.choice([b"baker", b"pilot", b"nurse"], size=200),
    }
    labels = ((features["age"] > 40) ^ (features["job"] == b"pilot")).astype(np.int32)
    return features, labels


def train_input_fn(features, labels, batch_size):
    return tf.data.Dataset.from_tensor_slices((dict(features), labels)).shuffle(200, seed=1).repeat().batch(batch_size)


def eval_input_fn(features, labels, batch_size):
    return tf.data.Dataset.from_tensor_slices((dict(features), labels)).batch(batch_size)


def main():
    args = parser.parse_args()
    age = tf.feature_column.numeric_column("age")
    buckets = tf.feature_column.bucketized_column(age, [30, 40, 50])
    job = tf.feature_column.categorical_column_with_vocabulary_list("job", ["baker", "pilot", "nurse"])
    crossed = tf.feature_column.crossed_column([buckets, job], hash_bucket_size=50)
    classifier = tf.estimator.DNNLinearCombinedClassifier(
        model_dir=args.model_dir,
        linear_feature_columns=[buckets, job, crossed],
        dnn_feature_columns=[buckets, tf.feature_column.embedding_column(job, dimension=4)],
        dnn_hidden_units=[16],
        dnn_optimizer=tf.keras.optimizers.legacy.Adam(0.05),
        config=tf.estimator.RunConfig(tf_random_seed=1),
    )
    features, labels = make_data()
    classifier.train(lambda: train_input_fn(features, labels, 50), steps=args.steps)
    result = classifier.evaluate(lambda: eval_input_fn(features, labels, 50))
    print("step {global_step} accuracy {accuracy:.3f} auc {auc:.3f}".format(**result))
    spec = tf.feature_column.make_parse_example_spec([age, job])
    receiver = tf.estimator.export.build_parsing_serving_input_receiver_fn(spec)
    path = classifier.export_saved_model(args.model_dir + "/export", receiver)
    example = tf.train.Example()
    example.features.feature["age"].float_list.value.append(60.0)
    example.features.feature["job"].bytes_list.value.append(b"baker")
    served = tf.saved_model.load(path.decode()).signatures["predict"]
    scores = served(tf.constant([example.SerializeToString()]))["probabilities"].numpy()[0]
    print("served class", int(np.argmax(scores)))


if __name__ == "__main__":
    main()
