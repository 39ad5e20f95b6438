// One processing element: in every cycle LANES activations meet one bit of a weight each.
//
// The weights' bits come from the highest to the lowest. The highest has a negative place value, so that
//
//     partial = -total                 in the first cycle of a step (first_plane)
//     partial = 2 * partial + total    in all others
//
// is the sum of LANES products after the last cycle of a step (last_plane), when it is added to what the steps before it
// left in `sum`. The first step of a run of steps overwrites `sum` instead: clearing it takes no cycle of its own.
module pe #(
    parameter LANES = 16,  // products added up at once
    parameter WIDTH = 16,  // bits of an activation
    parameter SUM = 32     // bits of the accumulator
) (
    input clk,
    input enable,
    input first_plane,
    input last_plane,
    input first_step,
    input [LANES-1:0] weights,                 // one bit for each lane
    input with_sign,                            // of the activations
    input [LANES*WIDTH-1:0] activations,
    output reg signed [SUM-1:0] sum
);
    localparam TOTAL = WIDTH + 1 + $clog2(LANES);

    reg signed [TOTAL-1:0] total;
    reg [WIDTH-1:0] value;
    integer lane;
    always @* begin
        total = 0;
        for (lane = 0; lane < LANES; lane = lane + 1)
            if (weights[lane]) begin
                value = activations[lane*WIDTH+:WIDTH];
                total = total + $signed({with_sign & value[WIDTH-1], value});
            end
    end

    reg signed [SUM-1:0] partial;
    wire signed [SUM-1:0] next = first_plane ? -total : (partial <<< 1) + total;
    always @(posedge clk)
        if (enable) begin
            partial <= next;
            if (last_plane) sum <= first_step ? next : sum + next;
        end
endmodule
