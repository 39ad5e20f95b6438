// The loops of a layer: which words the buffers deliver in this cycle, and what the tiles do with them.
//
//     for each group, for each set of windows, for each filter step:      one run, which ends with its sums
//         for each step (a kernel place and a slice of the channels):
//             for each bit of the weights, the highest first:             one cycle
//
// A layer whose weights are not shared has its tokens as sets of windows and its rounds as filter steps; each round reads
// activations of its own. `busy` is high for exactly as many cycles as the layer takes.
module sequencer #(
    parameter COUNT = 32  // bits of the counters
) (
    input clk,
    input reset,
    input start,
    input shared,
    input [COUNT-1:0] groups,
    input [COUNT-1:0] window_sets,
    input [COUNT-1:0] filter_steps,
    input [COUNT-1:0] steps,
    input [COUNT-1:0] planes,
    output reg busy,
    output reg [COUNT-1:0] weight_address,
    output reg [COUNT-1:0] activation_address,
    output first_plane,
    output last_plane,
    output first_step,
    output reg finished,        // the sums of run `finished_run` stand in the tiles, for one cycle
    output reg [COUNT-1:0] finished_run
);
    reg [COUNT-1:0] group, window_set, filter_step, step, plane;
    reg [COUNT-1:0] group_weights, run_activations;  // where the group's weights and the run's activations begin
    reg [COUNT-1:0] run;

    assign first_plane = plane == 0;
    assign last_plane = plane == planes - 1;
    assign first_step = step == 0;
    wire run_ends = last_plane && step == steps - 1;
    wire set_ends = run_ends && filter_step == filter_steps - 1;
    wire group_ends = set_ends && window_set == window_sets - 1;
    wire layer_ends = group_ends && group == groups - 1;

    always @(posedge clk) begin
        finished <= busy && run_ends;
        finished_run <= run;
        if (reset) busy <= 0;
        else if (start) begin
            busy <= 1;
            {group, window_set, filter_step, step, plane} <= 0;
            {weight_address, group_weights, activation_address, run_activations, run} <= 0;
        end else if (busy) begin
            busy <= !layer_ends;
            plane <= last_plane ? 0 : plane + 1;
            if (last_plane) step <= run_ends ? 0 : step + 1;
            if (run_ends) begin
                run <= run + 1;
                filter_step <= set_ends ? 0 : filter_step + 1;
            end
            if (set_ends) window_set <= group_ends ? 0 : window_set + 1;
            if (group_ends) group <= group + 1;

            // the next set of windows meets the same weights again, the next filter step the same activations
            weight_address <= set_ends && !group_ends ? group_weights : weight_address + 1;
            if (group_ends) group_weights <= weight_address + 1;
            if (last_plane)
                activation_address <= run_ends && !set_ends && shared ? run_activations : activation_address + 1;
            if (set_ends) run_activations <= activation_address + 1;
        end
    end
endmodule
